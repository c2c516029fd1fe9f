"""`persona-probe pack`: what a pack holds, and whether its held-out categories are held out."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import MODEL_HELP, Device, Json, model_name
from persona_probe.cli.say import result, table

Name = Annotated[str, typer.Argument(metavar="PACK", help="A shipped pack, or a pack folder.")]


def show(pack: Name = "organism", as_json: Json = False) -> None:
    """Count what a pack holds: prompts by category and tier, items by dimension, characters.

    Example: persona-probe pack show english
    """
    from persona_probe.personas.contents import contents
    from persona_probe.personas.pack import load_pack

    found = contents(load_pack(pack))
    prompts = [[str(cell) for cell in row.values()] for row in found["categories"]]
    items = [[str(cell) for cell in row.values()] for row in found["dimensions"]]
    about = ", ".join(f"{key} {found[key]}" for key in ("name", "hash", "signatures_hash"))
    people = f"personas {', '.join(found['personas'])}; foils {', '.join(found['foils'])}"
    attacks = ", ".join(f"{name} ({n} wordings)" for name, n in found["attacks"].items())
    pressed = (
        f"{found['paraphrases']} paraphrases, {found['lead_ins']} lead-ins, attacks: "
        f"{attacks or 'none'}; {found['multiple_choice']} multiple-choice questions"
    )
    counted = f"{found['questions']} questions, {found['foil_items']} foil items"
    text = "\n\n".join(
        [
            f"{about}\n{people}\n{counted}\n{pressed}",
            table(list(found["categories"][0]), prompts),
            table(list(found["dimensions"][0]), items),
        ]
    )
    result(found, as_json, text)


def audit(
    pack: Name = "organism",
    model: Annotated[
        str | None,
        typer.Option(help=f"Use this model's embeddings instead of TF-IDF. {MODEL_HELP}"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the whole result here (JSON).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare every held-out (T2) request with all that finding and finetuning may see.

    Exit code 1 when one is too near: a longer run of shared words or a higher cosine than allowed.

    Example: persona-probe pack audit english
    """
    from persona_probe.errors import SplitLeakError
    from persona_probe.files import write_json
    from persona_probe.personas.pack import load_pack
    from persona_probe.personas.tier_audit import audit_tiers

    asked = load_pack(pack)
    if model is None:
        found = audit_tiers(asked)
    else:
        from persona_probe.evaluation.prompt_embedding import prompt_embedding
        from persona_probe.models.loading import load_model

        loaded = load_model(model_name(model), device=device)
        embed, said = prompt_embedding(loaded)
        found = audit_tiers(asked, embed, said)
    value = found.to_json()
    if out is not None:
        write_json(out, value)
    rows = [[f"{row['cosine']:.2f}", row["text"], row["nearest"]] for row in value["nearest"]]
    runs = [[str(row["content"]), row["run"], row["text"]]
            for row in value["longest_runs"][:5]]  # fmt: skip
    text = (
        f"{found.held_out} held-out requests against {found.seen} texts; embedding: "
        f"{found.embedding}\nmean cosine to the nearest {found.mean:.3f}; between unrelated "
        f"categories {found.unrelated:.3f}\n\n{table(['cosine', 'held out', 'nearest'], rows)}\n\n"
        f"{table(['words', 'longest shared run', 'held out'], runs)}"
    )
    result(value, as_json, text)
    if found.leaks:
        raise SplitLeakError(
            f"{len(found.leaks)} held-out requests are too near to what is seen, first "
            f"{found.leaks[0].text!r}; reword them"
        )
