"""`persona-probe validate`: is a direction there, and would other prompts have given it?"""

from pathlib import Path
from typing import Annotated, Any

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
    permutations: Annotated[
        int, typer.Option(min=1, help="Permutations of held-out labels.")
    ] = 2000,
    relabellings: Annotated[
        int, typer.Option(min=1, help="Balanced shuffles, control tasks, random directions.")
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
    transfer: Annotated[
        str | None,
        typer.Option(
            metavar="GROUPS",
            help="Does what one group of prompts shows hold in the others? categories, templates "
            "(prompt families) or a key of the metadata.",
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
    told, text = {"rows": rows, "directions": about}, "\n".join([text, "", *footnotes(found)])
    if same_tokens:
        extra, more = _same_tokens(directions, same_tokens, permutations, seed)
        told, text = told | extra, f"{text}\n\n{more}"
    if transfer:
        extra, more = _transfer(directions, activations, transfer, seed)
        told, text = told | extra, f"{text}\n\n{more}"
    result(told, as_json, text)


Part = tuple[dict[str, Any], str]  # of the JSON, and tables


def _same_tokens(directions: Path, pair: tuple[Path, Path], permutations: int, seed: int) -> Part:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.before_after.same_tokens import validate_on_same_tokens
    from persona_probe.directions.checks import validation_table as tables
    from persona_probe.directions.direction_set import load_directions

    before, after = map(ActivationSet.open, pair)
    found = validate_on_same_tokens(
        load_directions(directions), before, after, permutations=permutations, seed=seed
    )
    title = f"The same tokens in both models: {pair[1].resolve().parent.name} from before"
    shown = table(tables.DETECTION_HEADS, tables.detection_rows(found), title)
    return {"same_tokens": [each.to_json() for each in found]}, f"{shown}\n{tables.SAME_TOKENS}"


def _transfer(directions: Path, activations: Path, by: str, seed: int) -> Part:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.checks import validation_table as tables
    from persona_probe.directions.checks.group_transfer import transfer_of
    from persona_probe.directions.direction_set import load_directions

    found = transfer_of(load_directions(directions), ActivationSet.open(activations), by, seed)
    title = f"Does what one group of prompts shows hold in the others? By {by}"
    text = [table(tables.TRANSFER_HEADS, tables.transfer_rows(found), title)]
    text += [line for each in found for line in tables.transfer_notes(each)]
    text.append(tables.TRANSFER.format(unit=found[0].unit))
    for each in found:
        for of in each.matrices if len(each.matrices[0].contrasts) <= tables.SHOWN else ():
            title = f"{each.persona}, layer {of.site.layer}: found on (row), tried on (column)"
            text += ["", table(["", *of.contrasts], tables.matrix_rows(of), title)]
    return {"transfer": [each.to_json() for each in found]}, "\n".join(text)
