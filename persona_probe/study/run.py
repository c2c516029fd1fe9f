"""One study, stage by stage, in one folder; `run_folder.md` says what lies in it.

Each stage reads the files of the stages before it, writes its own last and whole, and is skipped
when they are there: a run that was interrupted goes on where it stopped.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import read_json, remove_leftovers, write_json, write_text
from persona_probe.progress import note
from persona_probe.provenance import file_hash, library_versions
from persona_probe.study.agreeing import agree_stage
from persona_probe.study.arms import on_weights
from persona_probe.study.concluding import conclude
from persona_probe.study.lab import Lab
from persona_probe.study.landscape import landscape_stage
from persona_probe.study.pieces import forget
from persona_probe.study.plan import Study
from persona_probe.study.request import keep_plan
from persona_probe.study.stage import NAMES, STAGES, Stage, alone, logged, stage_named
from persona_probe.study.stages import (
    compare_stage,
    dose_stage,
    extract_stage,
    find_stage,
    guard_stage,
    mediate_stage,
    profile_stage,
    refusal_stage,
    reply_stage,
    robust_stage,
    select_stage,
    train_stage,
    validate_stage,
)
from persona_probe.study.status import status_of
from persona_probe.study.token_projections import tokens_stage
from persona_probe.study.verdict import Verdicts

PLAN = "study.json"
IDENTITY = ("model_hash", "chat_template_hash", "adapter_hashes", "pack_hash", "study_hash")

WORK: dict[str, Callable[[Lab], None]] = {
    "extract": extract_stage,
    "find": find_stage,
    "validate": validate_stage,
    "compare": compare_stage,
    "select": select_stage,
    "train": train_stage,
    "landscape": landscape_stage,
    "reply": reply_stage,
    "agree": agree_stage,
    "tokens": tokens_stage,
    "robust": robust_stage,
    "guard": guard_stage,
    "refusal": refusal_stage,
    "dose": dose_stage,
    "mediate": mediate_stage,
    "profile": profile_stage,
    "judge": conclude,
}


def run_study(
    study: Study,
    folder: Path,
    device: str = "auto",
    dtype: str | None = None,
    *,
    only: str | None = None,
    start: str | None = None,
    stop: str | None = None,
) -> Verdicts:
    """Run a study, finish one, or do a part of it again.

    Args:
        study: the plan; a folder holds one plan only.
        folder: where everything goes.
        device: where the model runs.
        dtype: precision; by device if not given.
        only: do this stage alone, again if it was done before; what later stages made of it stays.
        start: do this stage and all later ones again.
        stop: the last stage to do.

    Returns:
        The content of verdict.json; empty when the verdict was not reached.

    Raises:
        RequestError: the folder holds another study, a process is at work in it, or there is no
            such stage or its inputs are missing.
        PersonaProbeError: thresholds were changed after evaluation had begun.
    """
    chosen = _chosen(only, start, stop)
    with alone(folder):
        remove_leftovers(folder)
        lab = Lab(study, folder, device, dtype)
        _ = lab.judge, lab.second_judge  # one that cannot be had is refused before hours of work
        _freeze(lab)
        _require_unmoved(lab)
        _require_inputs(chosen, folder, only)
        for stage in chosen if only or start else ():
            stage.undo(folder)
            forget(folder, stage.name)
        for stage in chosen:
            number = f"{NAMES.index(stage.name) + 1}/{len(STAGES)}"
            if stage.done(folder):
                note(f"{number} {stage.title}: done before")
                continue
            left = None if only or stop else status_of(folder).left
            note(f"{number} {stage.title}" + (f"; {left}" if left else ""))
            with logged(stage, folder):
                WORK[stage.name](lab)
            forget(folder, stage.name)
        _require_unmoved(lab)
    verdict = folder / "verdict.json"
    return Verdicts(read_json(verdict) if verdict.exists() else {})


def _chosen(only: str | None, start: str | None, stop: str | None) -> tuple[Stage, ...]:
    if only is not None:
        if start or stop:
            raise RequestError("name one stage alone, or where to start and stop, not both")
        return (stage_named(only),)
    first = 0 if start is None else NAMES.index(stage_named(start).name)
    last = len(NAMES) if stop is None else NAMES.index(stage_named(stop).name) + 1
    if first >= last:
        raise RequestError(f"the stage {start!r} comes after {stop!r}, so there is nothing to do")
    return STAGES[first:last]


def _require_inputs(chosen: tuple[Stage, ...], folder: Path, only: str | None) -> None:
    """A stage that is done alone, or first, needs all those before it."""
    earlier = STAGES[: NAMES.index(chosen[0].name)]
    if missing := next((stage for stage in earlier if not stage.done(folder)), None):
        option = "--only" if only else "--from"
        raise RequestError(
            f"{option} {chosen[0].name}: the stage {missing.name!r} before it is not done in "
            f"{folder}; run it first, or leave out {option}"
        )


def _freeze(lab: Lab) -> None:
    """Write the plan before anything is measured; refuse a folder that holds another one."""
    study = lab.study
    plan = study.to_json() | {
        "study_hash": study.hash,
        "frozen_hash": study.frozen_hash,
        "confirmatory_tests": study.confirmatory_tests,
        "model_hash": lab.model.model_hash,
        "chat_template_hash": lab.model.chat_template_hash,
        "pack_hash": lab.pack.hash,
        "adapter_hashes": _adapter_hashes(lab),
        "split": {
            "hash": lab.split.hash,
            "find": len(lab.split.find),
            "select": len(lab.split.select),
            "evaluate": len(lab.split.evaluate),
        },
        "versions": library_versions(),
    }
    path = lab.folder / PLAN
    if path.exists():
        there = read_json(path)
        if differing := [key for key in IDENTITY if there.get(key) != plan[key]]:
            # A hash says that the plans differ; the first entry that does says in what.
            key, its, own = _first_difference(there, plan, [*study.to_json(), *differing])
            raise RequestError(
                f"{lab.folder} holds another study (its {key} is {its}, this one's {own}); choose "
                "another --out, or delete the folder"
            )
        return
    keep_plan(study, lab.folder)
    write_text(lab.folder / "README.md", (Path(__file__).parent / "run_folder.md").read_text())
    write_json(path, plan)


def _first_difference(
    there: Any, plan: Any, keys: Sequence[str], inside: str = ""
) -> tuple[str, Any, Any]:
    """The first of some entries that differs between two plans, and both values."""
    as_written = json.loads(json.dumps(plan))
    key = next(key for key in keys if there.get(key) != as_written.get(key))
    its, own = there.get(key), as_written.get(key)
    if isinstance(its, dict) and isinstance(own, dict):
        return _first_difference(its, own, [*own, *its], f"{inside}{key}.")
    return inside + key, its, own


def _require_unmoved(lab: Lab) -> None:
    """What counts as a pass must be at the end what it was before evaluation began."""
    there = read_json(lab.folder / PLAN)
    again = {key: lab.study.to_json()[key] for key in ("thresholds", "guards")}
    moved = [key for key, value in again.items() if there.get(key) != _as_json(value)]
    if moved or there.get("frozen_hash") != lab.study.frozen_hash:
        raise PersonaProbeError(
            f"{lab.folder / PLAN} was edited after the run began: {moved[0] if moved else 'hash'} "
            "is not what was frozen, so this verdict is not pre-registered; restore the file, or "
            "begin a new run in another folder"
        )


def _as_json(value: dict[str, object]) -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}


def _adapter_hashes(lab: Lab) -> dict[str, str]:
    """Hash of the weights of every adapter that lies in a folder, and of whole models."""
    study = lab.study
    hashes = {}
    for name in (*([study.helpful_only] if study.helpful_only else []), *study.finetunes):
        weights = on_weights(name)
        if weights["checkpoint"] is not None:
            place = Path(weights["checkpoint"]).expanduser()
            files = sorted(place.glob("*.safetensors")) if place.is_dir() else []
            for number, file in enumerate(files):
                hashes[f"{Path(name).name}/{number}"] = file_hash(file)
            continue
        source = lab.model.ref.adapter_source(name)
        for file in sorted(source.glob("adapter_model.*")) if isinstance(source, Path) else ():
            hashes[name] = file_hash(file)
    return hashes
