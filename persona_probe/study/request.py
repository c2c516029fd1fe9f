"""From what was asked for on the command line, or from a run folder, to a plan."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.evaluation.guards import GuardLimits
from persona_probe.files import read_json, write_json
from persona_probe.personas.pack import load_pack
from persona_probe.study.budget import Budget, Thresholds
from persona_probe.study.plan import ARMS, Study
from persona_probe.study.plan_file import read_study
from persona_probe.study.planning import name_models, plan_study

KEPT = ".resume.json"  # the plan with this machine's places, for `resume`
PACK = "organism"

Named = tuple[str | None, Sequence[str], Sequence[str]]  # helpful-only, finetuned, controls


def requested(
    plan: str,
    model_name: Callable[[str], str],
    pack: str | None,
    named: Named,
    without: Sequence[str],
    options: dict[str, Any],
) -> Study:
    """The plan of a study file, of a model's adapters by name, or of finetunes one by one.

    Args:
        plan: a study file (".toml"), or a model.
        model_name: what a model's short name stands for.
        pack: name or folder of the pack, if it was given.
        named: adapter of the model before, finetunes, controls, as `name_models` reads them.
        without: groups of arms to leave out.
        options: fields of `Study` that were given.

    Raises:
        RequestError: the file or an option makes no sense, or they contradict each other.
    """
    helpful_only, finetuned, controls = named
    if unknown := [name for name in without if name not in ARMS]:
        raise RequestError(f"--without {unknown[0]}: no such arms; they are {', '.join(ARMS)}")
    if Path(plan).suffix == ".toml":
        if pack is not None or helpful_only is not None or finetuned or controls:
            raise RequestError(
                f"models and pack stand in {plan}; leave out --pack, --helpful-only, --finetuned "
                "and --control, or leave out the file"
            )
        study = read_study(Path(plan), model_name=model_name, **options)
    else:
        study = _without_a_file(model_name(plan), pack or PACK, named, options)
    return replace(study, arms=tuple(name for name in study.arms if name not in without))


def _without_a_file(model: str, pack: str, named: Named, options: dict[str, Any]) -> Study:
    helpful_only, finetuned, controls = named
    personas = [persona.name for persona in load_pack(pack).personas]
    if finetuned:
        return name_models(model, pack, personas, helpful_only, finetuned, controls, **options)
    if helpful_only is not None or controls:
        raise RequestError(
            "--helpful-only and --control name single models, so name the finetunes, too: "
            f"--finetuned {personas[0]}=ADAPTER"
        )
    return plan_study(model, pack, personas, **options)


def keep_plan(study: Study, folder: Path) -> None:
    """Write the plan down for `planned_in`, with the places of its models on this machine."""
    write_json(folder / KEPT, asdict(study))


def planned_in(folder: Path) -> Study:
    """The plan of a run that was begun here.

    Raises:
        RequestError: no run was begun in the folder.
    """
    if not (folder / KEPT).exists():
        raise RequestError(
            f"{folder} holds no study to go on with; `persona-probe study run STUDY.toml --out "
            f"{folder}` begins one"
        )
    value = read_json(folder / KEPT)
    guards: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in value["guards"].items()
    }
    tuples = {key: tuple(value[key]) for key in ("strengths", "arms")}
    return Study(
        **{
            **value,
            **tuples,
            "finetuned": {
                persona: {scope: tuple(several) for scope, several in scopes.items()}
                for persona, scopes in value["finetuned"].items()
            },
            "controls": {kind: tuple(several) for kind, several in value["controls"].items()},
            "budget": Budget(**value["budget"]),
            "thresholds": Thresholds(**value["thresholds"]),
            "guards": GuardLimits(**guards),
        }
    )
