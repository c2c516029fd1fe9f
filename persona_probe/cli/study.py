"""`persona-probe study run`: the whole question, from models to a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import (
    MODEL_HELP,
    Device,
    Dtype,
    Json,
    PackName,
    Seed,
    model_name,
)
from persona_probe.cli.say import note, result


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = "organism",
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("artifacts/demo"),
    pack: PackName = "organism",
    helpful_only: Annotated[
        str | None, typer.Option(help="Adapter of the model before safety finetuning.")
    ] = None,
    finetuned: Annotated[
        list[str] | None,
        typer.Option(help="PERSONA=ADAPTER, one seed of a finetune; repeat it."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="KIND=ADAPTER: placebo, refusal-only, shuffled, style-only; repeat it."),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Publication-grade numbers.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Does the direction reproduce emergent alignment? A verdict, with its controls.

    Without --finetuned, adapters in MODEL/adapters are recognised by name: helpful-only,
    narrow-PERSONA-SEED, broad-PERSONA-SEED, placebo-SEED, refusal-only-SEED. A run that was
    interrupted continues.

    Example: persona-probe study run organism --out artifacts/demo
    """
    from persona_probe.files import read_json
    from persona_probe.personas.pack import load_pack
    from persona_probe.report.page import write_report
    from persona_probe.report.summary import verdict_text
    from persona_probe.study.plan import THOROUGH, Budget, name_models, plan_study
    from persona_probe.study.run import run_study

    personas = tuple(persona.name for persona in load_pack(pack).personas)
    options = {"seed": seed, "budget": THOROUGH if thorough else Budget()}
    name = model_name(model)
    if finetuned:
        study = name_models(name, pack, personas, helpful_only, finetuned, control or [], **options)
    else:
        study = plan_study(name, pack, personas, **options)
    run_study(study, out, device, dtype)
    page = write_report(out)
    vectors = out / "directions" / "steering"
    note(f"report: {page}\nsteering vectors: {vectors}")
    value = read_json(out / "verdict.json") | {
        "report": str(page),
        "steering_vectors": str(vectors),
    }
    result(value, as_json, verdict_text(out))
