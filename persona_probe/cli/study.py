"""`persona-probe study …`: the whole question, from models to a verdict."""

from pathlib import Path
from typing import Annotated, Any

import typer

from persona_probe.cli.options import (
    Device,
    Dtype,
    Json,
    model_name,
)
from persona_probe.cli.say import note, result, table

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Only = Annotated[str | None, typer.Option(help="Do this stage alone, again if it was done.")]
From = Annotated[str | None, typer.Option("--from", help="Do this stage and all later ones again.")]
To = Annotated[str | None, typer.Option("--to", help="The last stage to do.")]
DEFAULT_OUT = Path("artifacts/demo")


def run(
    plan: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY.toml|MODEL",
            help="A study file, a model folder or hub name; 'organism' is the embedded model.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder.")] = DEFAULT_OUT,
    pack: Annotated[
        str | None, typer.Option(help="A shipped pack, or a pack folder; 'organism' by default.")
    ] = None,
    helpful_only: Annotated[
        str | None, typer.Option(help="Adapter of the model before safety finetuning.")
    ] = None,
    finetuned: Annotated[
        list[str] | None,
        typer.Option(
            help="PERSONA=FINETUNE or PERSONA/broad=FINETUNE, one seed each; repeat it. A finetune "
            "is an adapter, or a folder with a whole model."
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="KIND=FINETUNE: placebo, refusal-only, shuffled, style-only; repeat it."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who reads the replies: phrases (the pack's), likelihood=MODEL, chat=MODEL, "
            "classifier=FOLDER, endpoint=MODEL@URL, inspect=SCORER."
        ),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A group of arms to leave out; repeat it.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Publication-grade numbers.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    only: Only = None,
    start: From = None,
    stop: To = None,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Does the direction reproduce emergent alignment? A verdict, with its controls.

    Without a study file and without --finetuned, adapters in MODEL/adapters are recognised by name:
    helpful-only, narrow-PERSONA-SEED, broad-PERSONA-SEED, placebo-SEED, refusal-only-SEED. A run
    that was interrupted continues. Stages, in order: extract, find, validate, compare, select,
    train, landscape, reply, agree, tokens, robust, guard, refusal, dose, mediate, profile,
    judge.

    Example: persona-probe study run organism --out artifacts/demo

    \b
    A STUDY.toml, in which only the model is needed:
      model = "organism"
      budget = "thorough"        # or [budget] with single numbers
      without = ["mediation"]    # arms, judge, second_judge, suite, pack, seed, ...
      [models]
      helpful_only = "helpful-only"
      placebo = ["placebo-0"]
      [models.virtue]
      narrow = ["narrow-virtue-0", "narrow-virtue-1", "narrow-virtue-2"]
    """  # noqa: D301 (the backspace is click's mark for lines that it must not join)
    from persona_probe.study.plan_file import BUDGETS
    from persona_probe.study.request import requested

    options: dict[str, Any] = {} if seed is None else {"seed": seed}
    if thorough:
        options["budget"] = BUDGETS["thorough"]
    if judge is not None:
        options["judge"] = judge
    named = (helpful_only, finetuned or [], control or [])
    study = requested(plan or "organism", model_name, pack, named, without or [], options)
    _finish(study, out, device, dtype, as_json, only=only, start=start, stop=stop)


def resume(
    folder: RunFolder,
    only: Only = None,
    start: From = None,
    stop: To = None,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was interrupted, or do a part of it again.

    Example: persona-probe study resume artifacts/demo --from judge
    """
    from persona_probe.study.request import planned_in

    _finish(planned_in(folder), folder, device, dtype, as_json, only=only, start=start, stop=stop)


def status(folder: RunFolder, as_json: Json = False) -> None:
    """Which stages of a run are done, running and left, and what each took.

    Example: persona-probe study status artifacts/demo
    """
    from persona_probe.study.status import status_of

    found = status_of(folder)
    rows = [[s.name, s.state, s.time, s.detail] for s in found.stages]
    text = table(["stage", "state", "time", "what"], rows) + f"\n{found.in_words}"
    result(found.to_json(), as_json, text)


def show(folder: RunFolder, as_json: Json = False) -> None:
    """The verdict of a finished run: every rung of every persona, with its numbers.

    Example: persona-probe study show artifacts/demo
    """
    from persona_probe.files import read_json
    from persona_probe.report.summary import ladder_text, verdict_text
    from persona_probe.study.status import require_verdict

    require_verdict(folder)
    value = read_json(folder / "verdict.json")
    result(value, as_json, f"{verdict_text(folder)}\n\n{ladder_text(value)}")


def _finish(
    study: Any, out: Path, device: str, dtype: str | None, as_json: bool, **part: str | None
) -> None:
    """Run, write the report, and say where things are."""
    from persona_probe.report.page import write_report
    from persona_probe.report.summary import verdict_text
    from persona_probe.study.run import run_study

    verdict = run_study(study, out, device, dtype, **part)
    if not verdict:
        text = f"no verdict yet; `persona-probe study resume {out}` goes on"
        result({"run": str(out), "verdict": None}, as_json, text)
        return
    page = write_report(out)
    vectors = out / "directions" / "steering"
    note(f"report: {page}\nsteering vectors: {vectors}")
    for flag in verdict["flags"]:
        note(f"warning: {flag}")
    value = verdict | {"report": str(page), "steering_vectors": str(vectors)}
    result(value, as_json, verdict_text(out))
