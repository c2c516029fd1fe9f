"""`persona-probe validate`: is a direction there, and would other prompts have given it?"""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import note, result, table


def validate(
    directions: Annotated[
        Path, typer.Argument(metavar="DIRECTIONS", help="A folder or file written by `find`.")
    ],
    activations: Annotated[
        Path, typer.Argument(metavar="ACTIVATIONS", help="The activations they were found in.")
    ],
    permutations: Annotated[int, typer.Option(help="Permutations of held-out labels.")] = 2000,
    relabellings: Annotated[
        int, typer.Option(help="Balanced shuffles, control tasks, random directions.")
    ] = 99,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Activations of the same conversations to beat, e.g. the embedding layer; repeat.",
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option(help="The --seed of `find`.")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Every number, with its control.")] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Write the numbers into the directions' README.md.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Validate directions on prompt families that were used neither to find nor to select.

    Example: persona-probe validate artifacts/directions artifacts/acts/bare/last_prompt_token
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.checks.evaluating import captured_in, evaluate_all
    from persona_probe.directions.checks.validation_table import (
        FULL_HEADS,
        HEADS,
        footnotes,
        full_rows,
        short_rows,
    )
    from persona_probe.directions.direction_set import load_directions, write_card

    found = evaluate_all(
        load_directions(directions),
        ActivationSet.open(activations),
        split_seed,
        captured=captured_in(baseline or []),
        permutations=permutations,
        relabellings=relabellings,
        seed=seed,
    )
    if card:
        folder = directions if directions.is_dir() else directions.parent
        written = write_card(folder, [each.validation for each in found])
        note(f"-> {written}" if written else f"{folder}/README.md is not a card; left alone")
    rows = [
        row.to_json() | {"persona": each.validation.persona}
        for each in found
        for row in each.validation.rows
    ]
    about = [{k: v for k, v in each.to_json().items() if k != "rows"} for each in found]
    text = table(FULL_HEADS, full_rows(found)) if full else table(HEADS, short_rows(found))
    result({"rows": rows, "directions": about}, as_json, "\n".join([text, "", *footnotes(found)]))
