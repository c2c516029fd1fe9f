"""`persona-probe compare`: what finetuning did, against directions that existed before it."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table


def compare(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="Activations before finetuning.")
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="Activations after it, on the same prompts.")
    ],
    directions: Annotated[Path, typer.Option(help="A folder or file written by `find`.")],
    resamples: Annotated[int, typer.Option(help="Bootstrap draws of prompt families.")] = 2000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare a model before and after finetuning along directions found before it.

    Example: persona-probe compare A/helpful-only/last_prompt_token \
A/narrow-virtue-0/last_prompt_token --directions artifacts/directions
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.comparison import compare as compare_sets
    from persona_probe.directions.direction_set import load_directions

    found = compare_sets(
        ActivationSet.open(before),
        ActivationSet.open(after),
        load_directions(directions),
        resamples=resamples,
        seed=seed,
    )
    rows = [
        [
            row.persona,
            str(row.site.layer),
            f"{row.cosine:.2f}",
            f"{row.null_cosine.high:.2f}",
            str(row.shift),
        ]
        for row in found.rows
    ]
    heads = ["direction", "layer", "cosine to shift", "null 97.5%", "shift (sd before)"]
    result(found.to_json(), as_json, table(heads, rows))
