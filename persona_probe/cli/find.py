"""`persona-probe find`: activations to directions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table

TABLE, PARTS = "found.json", "parts"


def find(
    activations: Annotated[
        Path, typer.Argument(metavar="ACTIVATIONS", help="A folder written by `extract`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the directions.")],
    finder: Annotated[
        str | None,
        typer.Option(
            help="mean_difference, linear_probe, whitened_difference, shrinkage_lda or "
            "principal_component. If not given, linear_probe for --family probe, mean_difference "
            "for the others."
        ),
    ] = None,
    family: Annotated[
        str,
        typer.Option(
            help="Which contrast: prompt_in_H or probe (labels are system prompts), model_diff "
            "(see --after), resp_in_H (labels are the writers of `extract --crossed`), behav_in_F "
            "(labels are kinds of replies)."
        ),
    ] = "prompt_in_H",
    after: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="For model_diff: a finetune's activations on the prompts of ACTIVATIONS; repeat.",
        ),
    ] = None,
    negative: Annotated[
        str, typer.Option(help="Label, or writer, of the class to point away from.")
    ] = "neutral",
    positive: Annotated[
        list[str] | None,
        typer.Option(
            help="Label, or writer, to point to; repeat it. Every other one if not given."
        ),
    ] = None,
    c: Annotated[
        str | None,
        typer.Option(
            help="Inverse strength of the probe's penalty, 1 if not given; `auto` chooses it on "
            "prompt families left out."
        ),
    ] = None,
    orthogonal_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER:PERSONA",
            help="A direction to take out first, such as refusal; repeat it.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find one direction per label or finetune and site, on half of the prompt families.

    The other families stay untouched for selection and for `validate`. Of several directions, what
    they share and what is each one's own are written to OUT/parts. Where `extract` kept moments
    only, mean_difference, whitened_difference and shrinkage_lda are found from those. The table is
    also written to found.json in the folder.

    Example: persona-probe find artifacts/acts/bare/last_prompt_token --out artifacts/directions
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.families.family import FAMILIES
    from persona_probe.directions.families.found_family import energy_of, finetunes_in, found_in
    from persona_probe.directions.families.parts import save_parts
    from persona_probe.directions.finders import finder_named
    from persona_probe.directions.finders.orthogonalised import Orthogonalised, read_nuisances
    from persona_probe.directions.found_table import rows_of
    from persona_probe.directions.from_moments import opened
    from persona_probe.errors import RequestError
    from persona_probe.files import write_json

    if family not in FAMILIES:
        raise RequestError(f"no family {family!r}; choose one of {', '.join(FAMILIES)}")
    source, finetunes = opened(activations), finetunes_in(after or [])
    name = finder or FAMILIES[family].finder().name
    chosen = finder_named(name) if c is None else finder_named(name, c=_strength(c))
    if orthogonal_to:
        chosen = Orthogonalised(chosen, read_nuisances(orthogonal_to))
    directions, differences = (
        found_in(source, family, finetunes, each, negative, positive, seed)
        for each in (chosen, finder_named("mean_difference"))
    )
    save_directions(directions, out)
    parts = save_parts(directions, out / PARTS) if len(directions) > 1 else {}
    noiseless = {}
    if parts and isinstance(source, ActivationSet):
        noiseless = energy_of(directions, source)
    rows = rows_of(directions, differences, parts, noiseless)
    write_json(out / TABLE, rows)
    columns = ["direction", "layer", "gap", "gap / residual norm", "cosine to mean difference"]
    shown = [
        [
            row["persona"],
            str(row["layer"]),
            f"{row['gap']:.3f}",
            f"{row['gap_in_norms']:.3f}",
            f"{row['cosine_to_mean_difference']:.3f}",
            *([_share(row)] if parts else []),
        ]
        for row in rows
    ]
    if parts:
        columns.append("own part (without noise)")
    value = {"out": str(out), "family": family, "finder": chosen.label, "directions": rows}
    value |= {"parts": str(out / PARTS)} if parts else {}
    text = [table(columns, shown)]
    if parts:
        text.append(
            "own part: share of the squared length that the directions do not share, above "
            f"1 where one opposes the others; without noise: 95 % over families. -> {out / PARTS}"
        )
    result(value, as_json, "\n".join([*text, f"-> {out}"]))


def _share(row: dict[str, Any]) -> str:
    noiseless = row["own_share_without_noise"]
    if noiseless is None or noiseless["value"] is None:
        return f"{row['own_share']:.2f}"
    ends = "" if noiseless["low"] is None else f" [{noiseless['low']:.2f}, {noiseless['high']:.2f}]"
    return f"{row['own_share']:.2f} ({noiseless['value']:.2f}{ends})"


def _strength(told: str) -> float | None:
    """`--c` as the probe takes it."""
    from persona_probe.errors import RequestError

    if told == "auto":
        return None
    try:
        strength = float(told)
    except ValueError:
        strength = 0.0
    if not 0 < strength < float("inf"):
        raise RequestError(f"--c {told!r} is neither a positive number nor auto")
    return strength
