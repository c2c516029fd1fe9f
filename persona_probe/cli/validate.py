"""`persona-probe validate`: is a direction there, and would other prompts have given it?"""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table


def validate(
    directions: Annotated[
        Path, typer.Argument(metavar="DIRECTIONS", help="A folder or file written by `find`.")
    ],
    activations: Annotated[
        Path, typer.Argument(metavar="ACTIVATIONS", help="The activations they were found in.")
    ],
    resamples: Annotated[int, typer.Option(help="Bootstrap draws of prompt families.")] = 2000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Validate directions on the prompt families that they were not found on.

    Example: persona-probe validate artifacts/directions artifacts/acts/bare/last_prompt_token
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.directions.per_label import validate_on_the_rest

    found = validate_on_the_rest(
        load_directions(directions), ActivationSet.open(activations), resamples=resamples, seed=seed
    )
    rows = [
        [
            validation.persona,
            str(row.site.layer),
            str(row.auroc),
            f"{row.p_over_sites:.4f}",
            "-" if row.reliability is None else f"{row.reliability.spearman_brown:.2f}",
            "-" if row.chance is None else f"{row.chance.auroc.high:.2f}",
        ]
        for validation in found
        for row in validation.rows
    ]
    heads = [
        "direction",
        "layer",
        "held-out AUROC",
        "p (max over sites)",
        "split-half",
        "null 97.5%",
    ]
    value = {"rows": [r.to_json() | {"persona": v.persona} for v in found for r in v.rows]}
    result(value, as_json, table(heads, rows))
