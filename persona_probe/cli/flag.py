"""`persona-probe flag`: which training samples would push the model towards a persona."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Adapter, Device, Dtype, Json, Seed, model_name
from persona_probe.cli.say import note, result, table


def flag(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help=".jsonl of messages that end with a reply.")
    ],
    model: Annotated[str, typer.Option(help="The model before finetuning.")],
    direction: Annotated[
        list[str],
        typer.Option(
            metavar="FOLDER:PERSONA:LAYER",
            help="Direction to project onto, best one found on replies; repeat it.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help=".jsonl of every sample, ranked.")] = None,
    adapter: Adapter = None,
    position: Annotated[
        str, typer.Option(help="Where replies are read: response_mean or response_first:K.")
    ] = "response_mean",
    top: Annotated[int, typer.Option(min=0, help="Samples to print per direction.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Room for an own reply.")] = 128,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Project training replies, minus the model's own replies, onto directions, and rank them.

    Example: persona-probe flag artifacts/virtue.jsonl --model organism --adapter helpful-only \
--direction artifacts/demo/directions/steering:virtue:1
    """
    from persona_probe.files import write_jsonl
    from persona_probe.finetuning.flagging import flag as project
    from persona_probe.finetuning.steered import direction_named
    from persona_probe.models.conversations import read_conversations
    from persona_probe.models.loading import load_model

    directions = [direction_named(text) for text in direction]
    conversations = read_conversations(data)
    loaded = load_model(model_name(model), device=device, dtype=dtype)
    found = project(loaded, conversations, directions, position, adapter, max_new_tokens, seed)
    ranked = found.ranked()
    if out is not None:
        write_jsonl(out, ranked)
    places = {d.position for d in directions}
    if elsewhere := sorted(p for p in places if not p.startswith("response")):
        note(
            f"replies are read at {position}, and directions were found at "
            f"{', '.join(elsewhere)}: one found on replies tells personas apart better"
        )
    if found.skipped:
        note(f"{len(found.skipped)} samples left out: the model gives no reply of its own to them")
    columns = ["direction", "layer", "shift in sd [95 %] (n)", "random [95 %]", "p"]
    rows = [
        [f.persona, str(f.layer), str(f.shift), str(f.random), f"{f.p:.3f}"]
        for f in found.directions
    ]
    texts = [table(columns, rows)]
    shown = [row for row in ranked if row["rank"] <= top]
    if shown:
        cells = [
            [row["direction"], str(row["rank"]), str(row["id"]), f"{row['shift']:+.2f}"]
            for row in shown
        ]
        texts.append(table(["direction", "rank", "sample", "shift"], cells))
    value = {
        "directions": [f.to_json() for f in found.directions],
        "skipped": list(found.skipped),
        "samples": ranked if out is None else str(out),
    }
    result(value, as_json, "\n\n".join(texts))
