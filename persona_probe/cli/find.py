"""`persona-probe find`: activations to directions."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table


def find(
    activations: Annotated[
        Path, typer.Argument(metavar="ACTIVATIONS", help="A folder written by `extract`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the directions.")],
    finder: Annotated[str, typer.Option(help="mean_difference or linear_probe.")] = (
        "mean_difference"
    ),
    negative: Annotated[str, typer.Option(help="Label of the class to point away from.")] = (
        "neutral"
    ),
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Label to point to; repeat it. Every other label if not given."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find one direction per label and site, on half of the prompt families.

    The other families stay untouched for selection and for `validate`.

    Example: persona-probe find artifacts/acts/bare/last_prompt_token --out artifacts/directions
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions import finder_named
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.per_label import find_per_label

    directions = find_per_label(
        ActivationSet.open(activations), finder_named(finder), negative, positive, seed
    )
    save_directions(directions, out)
    rows = [
        [label, str(site.layer), f"{direction.gap:.3f}", f"{direction.gap / direction.norm:.3f}"]
        for label, by_site in directions.items()
        for site, direction in by_site.items()
    ]
    value = {
        "out": str(out),
        "directions": [
            {"persona": row[0], "layer": int(row[1]), "gap": float(row[2])} for row in rows
        ],
    }
    text = table(["direction", "layer", "gap", "gap / residual norm"], rows)
    result(value, as_json, f"{text}\n-> {out}")
