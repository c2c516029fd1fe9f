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
    same_tokens: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Activations of both models on the same prompts, such as PACK:safety: do the "
            "directions tell them apart, where no word differs?",
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
    from persona_probe.directions.before_after.same_tokens import validate_on_same_tokens
    from persona_probe.directions.checks.evaluating import captured_in, evaluate_all
    from persona_probe.directions.checks.validation_table import (
        DETECTION_HEADS,
        FULL_HEADS,
        HEADS,
        SAME_TOKENS,
        detection_rows,
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
    told, text = {"rows": rows, "directions": about}, "\n".join([text, "", *footnotes(found)])
    if same_tokens:
        pair = [ActivationSet.open(folder) for folder in same_tokens]
        again = validate_on_same_tokens(
            load_directions(directions), *pair, permutations=permutations, seed=seed
        )
        told["same_tokens"] = [each.to_json() for each in again]
        name = same_tokens[1].resolve().parent.name
        title = f"The same tokens in both models: {name} from before"
        shown = table(DETECTION_HEADS, detection_rows(again), title)
        text = f"{text}\n\n{shown}\n{SAME_TOKENS}"
    result(told, as_json, text)
