"""`persona-probe compare`: what finetuning did, against directions that existed before it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result

if TYPE_CHECKING:
    from persona_probe.activations.activation_set import ActivationSet


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE",
            help="Activations before finetuning, on prompts that no direction was found on, "
            "such as PACK:safety.",
        ),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="Activations after it, on the same prompts.")
    ],
    directions: Annotated[
        Path | None, typer.Option(help="A folder or file written by `find`.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--after", metavar="NAME=FOLDER", help="Another finetune; repeat it."),
    ] = None,
    placebo: Annotated[
        Path | None, typer.Option(help="Activations of a placebo finetune: the floor.")
    ] = None,
    second_seed: Annotated[
        Path | None, typer.Option(help="Activations of AFTER's recipe, other seed: the ceiling.")
    ] = None,
    prompted: Annotated[
        Path | None,
        typer.Option(
            "--contrast",
            metavar="FOLDER",
            help="Activations before finetuning under system prompts, where directions are found: "
            "adds reliabilities, transfer between personas and --survey.",
        ),
    ] = None,
    negative: Annotated[str, typer.Option(help="Label of the neutral class there.")] = "neutral",
    survey: Annotated[
        bool, typer.Option("--survey", help="One table of all personas, before and after.")
    ] = False,
    unrelated: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Both models on unrelated text, best its first five tokens: context-free share.",
        ),
    ] = None,
    adapter_weights: Annotated[
        Path | None, typer.Option(help="Folder of AFTER's LoRA adapter: what it writes.")
    ] = None,
    before_weights: Annotated[
        Path | None, typer.Option(help="Folder of BEFORE's adapter, if any: taken off.")
    ] = None,
    model_folder: Annotated[
        Path | None,
        typer.Option("--model", help="Folder of the model under it: follows value projections."),
    ] = None,
    behaviour: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="POSITIVE NEGATIVE", help="Labels of replies for behav_in_F."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the directions of every family there is.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Dimensions of a shift's subspace.")] = 4,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare a model before and after finetuning along directions found before it.

    Example: persona-probe compare A/helpful-only/last_prompt_token \
A/narrow-virtue-0/last_prompt_token --directions artifacts/directions
    """
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.cli import compare_tables as tables
    from persona_probe.directions.before_after.comparison import reliabilities
    from persona_probe.directions.before_after.finetunes import compare_finetunes
    from persona_probe.directions.direction_set import load_directions, save_directions
    from persona_probe.errors import RequestError

    if survey and prompted is None:
        raise RequestError("--survey needs --contrast, the activations under system prompts")
    if adapter_weights and directions is None:
        raise RequestError("--adapter-weights needs --directions to compare with")
    there = ActivationSet.open(before)
    finetunes = _finetunes(after, others, placebo, second_seed)
    contrast = ActivationSet.open(prompted) if prompted else None
    found_before = load_directions(directions) if directions else None
    known = reliabilities(found_before, contrast, seed) if found_before and contrast else None
    subject, named = next(iter(finetunes)), {path: name for name, path in finetunes.items()}
    floor = named[placebo] if placebo else None
    activations = {name: ActivationSet.open(path) for name, path in finetunes.items()}
    found = compare_finetunes(
        there,
        activations,
        found_before,
        placebo=floor,
        second_seed=named[second_seed] if second_seed else None,
        reliabilities=known,
        k=k,
        seed=seed,
    )
    main = found.comparisons[subject].to_json() if found.comparisons else {"rows": []}
    value: dict[str, Any] = main | {"after": subject} | found.to_json()
    text = tables.finetunes(found)
    if contrast is not None and survey:
        extra, more = _survey(contrast, there, activations, floor, negative, seed)
        value, text = value | extra, [*text, *more]
    elif contrast is not None and found_before:
        extra, more = _transfer(contrast, found_before)
        value, text = value | extra, [*text, *more]
    if unrelated:
        extra, more = _context_free(there, activations[subject], subject, unrelated)
        value, text = value | extra, [*text, *more]
    if adapter_weights and found_before:
        folders = adapter_weights, before_weights, model_folder
        extra, more = _weights(found_before, folders, k)
        value, text = value | extra, [*text, *more]
    if save:
        from persona_probe.directions.families.family_set import find_families

        families = find_families(
            there, activations, contrast, negative=negative, behaviour=behaviour, seed=seed
        )
        if not families.directions:
            reason = next(iter(families.left_out.values()))
            raise RequestError(f"no direction to save in {save}: {reason}")
        save_directions(families.directions, save)
        value |= {
            "saved": {"out": str(save), "directions": list(families.directions)},
            "left_out": families.left_out,
        }
        text.append(tables.saved(families, save))
    result(value, as_json, "\n\n".join(text))


Part = tuple[dict[str, Any], list[str]]  # of the JSON, and tables


def _finetunes(
    after: Path, others: list[str] | None, placebo: Path | None, second_seed: Path | None
) -> dict[str, Path]:
    """Every finetune by name, the one in question first."""
    from persona_probe.errors import RequestError

    named = [(_name(after), after)]
    for pair in others or []:
        name, found, folder = pair.partition("=")
        if not (name and found and folder):
            raise RequestError(f"--after {pair!r}: write NAME=FOLDER")
        named.append((name, Path(folder)))
    named += [(_name(path), path) for path in (second_seed, placebo) if path is not None]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"two finetunes are called {twice!r}; rename one of their folders")
    if len({path for _, path in named}) < len(named):
        raise RequestError("the same folder was given for two finetunes")
    return dict(named)


def _name(folder: Path) -> str:
    """`extract` writes OUT/STATE/POSITION."""
    return folder.resolve().parent.name


def _survey(
    contrast: "ActivationSet",
    before: "ActivationSet",
    finetunes: "dict[str, ActivationSet]",
    placebo: str | None,
    negative: str,
    seed: int,
) -> Part:
    from persona_probe.cli import compare_tables as tables
    from persona_probe.directions.before_after.survey import survey
    from persona_probe.directions.finders import finder_named

    found = survey(
        contrast,
        finder_named("mean_difference"),
        before,
        finetunes,
        placebo=placebo,
        negative=negative,
        seed=seed,
    )
    return {"survey": found.to_json()}, [tables.survey(found), *tables.transfer(found.transfer)]


def _transfer(contrast: "ActivationSet", directions: Any) -> Part:
    from persona_probe.cli import compare_tables as tables
    from persona_probe.directions.checks.transfer import transfer_on_the_rest
    from persona_probe.directions.json_form import json_form

    found = transfer_on_the_rest(directions, contrast)
    return {"transfer": json_form(found)}, tables.transfer(found)


def _context_free(
    before: "ActivationSet", after: "ActivationSet", name: str, folders: tuple[Path, Path]
) -> Part:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.cli import compare_tables as tables
    from persona_probe.directions.before_after.context_free import context_free
    from persona_probe.directions.families.shift import Shift
    from persona_probe.directions.json_form import json_form

    old, new = map(ActivationSet.open, folders)
    neutral = Shift.between(old, new, name=name)
    found = context_free(Shift.between(before, after, name=name), neutral)
    return {"context_free": json_form(found)}, [tables.context_free(found)]


def _weights(directions: Any, folders: tuple[Path, Path | None, Path | None], k: int) -> Part:
    from persona_probe.cli import compare_tables as tables
    from persona_probe.directions.before_after.adapter_file import Adapter, OutputWeights
    from persona_probe.directions.before_after.weight_difference import weight_difference
    from persona_probe.directions.json_form import json_form

    adapter, before, model = folders
    found = weight_difference(
        directions,
        Adapter.open(adapter),
        Adapter.open(before) if before else None,
        OutputWeights.open(model) if model else None,
        k=k,
    )
    return {"weights": json_form(found)}, [tables.weights(found)]
