"""One study, stage by stage, in one folder; a run that was interrupted goes on where it stopped.

    study.json       the plan with its thresholds, frozen before anything is measured
    activations/     the residual stream before and after finetuning, pooled
    directions/      persona directions at every site; directions/steering/ the vectors in use
    validation.json  comparison.json  selection.json
    landscape.json   where every model lies along the directions and beside the others
    replies.jsonl    every reply, judged; tokens.jsonl a few of them, projected token by token
    guards.json  refusal.json  dose.json  profile_scores.json
    arms.json  effects.json  profiles.json
    verdict.json     the ladder

Each stage reads the files of the stages before it, writes its own last and whole, and is skipped
when they are there.
"""

from collections.abc import Callable
from pathlib import Path

from persona_probe.errors import RequestError
from persona_probe.files import read_json, write_json
from persona_probe.progress import note
from persona_probe.provenance import file_hash, library_versions
from persona_probe.study.concluding import conclude
from persona_probe.study.lab import Lab
from persona_probe.study.landscape import landscape_stage
from persona_probe.study.plan import Study
from persona_probe.study.stages import (
    compare_stage,
    directions_stage,
    extract_stage,
    guards_stage,
    profiles_stage,
    refusal_stage,
    replies_stage,
    select_stage,
    validate_stage,
)
from persona_probe.study.token_projections import tokens_stage
from persona_probe.study.verdict import Verdicts

PLAN = "study.json"
IDENTITY = ("model_hash", "chat_template_hash", "adapter_hashes", "pack_hash", "study_hash")
Stage = Callable[[Lab], None]

# What a stage is called, the last file it writes, and the function that does it.
STAGES: tuple[tuple[str, str, Stage], ...] = (
    ("extract activations before and after", "activations/.complete", extract_stage),
    ("find directions", "directions/README.md", directions_stage),
    ("validate them on held-out families", "validation.json", validate_stage),
    ("compare before with after", "comparison.json", compare_stage),
    ("select site and strength", "selection.json", select_stage),
    ("place every model in activation space", "landscape.json", landscape_stage),
    ("generate and judge replies", "replies.jsonl", replies_stage),
    ("project a few replies token by token", "tokens.jsonl", tokens_stage),
    ("measure what steering costs", "guards.json", guards_stage),
    ("measure refusal probabilities", "refusal.json", refusal_stage),
    ("measure persona profiles", "profile_scores.json", profiles_stage),
    ("judge the evidence", "verdict.json", conclude),
)


def run_study(
    study: Study, folder: Path, device: str = "auto", dtype: str | None = None
) -> Verdicts:
    """Run a study, or finish one.

    Args:
        study: the plan; a folder holds one plan only.
        folder: where everything goes.
        device: where the model runs.
        dtype: precision; by device if not given.

    Returns:
        The content of verdict.json.

    Raises:
        RequestError: the folder holds another study.
    """
    lab = Lab(study, folder, device, dtype)
    _freeze(lab)
    for number, (title, last_file, stage) in enumerate(STAGES, start=1):
        if (folder / last_file).exists():
            note(f"{number}/{len(STAGES)} {title}: done before")
            continue
        note(f"{number}/{len(STAGES)} {title}")
        stage(lab)
    return Verdicts(read_json(folder / "verdict.json"))


def _freeze(lab: Lab) -> None:
    """Write the plan before anything is measured; refuse a folder that holds another one."""
    plan = lab.study.to_json() | {
        "study_hash": lab.study.hash,
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
            raise RequestError(
                f"{lab.folder} holds another study (its {differing[0]} is "
                f"{there.get(differing[0])}, this one's {plan[differing[0]]}); choose another "
                "--out, or delete the folder"
            )
        return
    write_json(path, plan)


def _adapter_hashes(lab: Lab) -> dict[str, str]:
    """Hash of the weights of every adapter that lies in a folder."""
    study = lab.study
    scopes = [adapters for scopes in study.finetuned.values() for adapters in scopes.values()]
    names = [a for several in (*scopes, *study.controls.values()) for a in several]
    hashes = {}
    for name in (*([study.helpful_only] if study.helpful_only else []), *names):
        source = lab.model.ref.adapter_source(name)
        for file in sorted(source.glob("adapter_model.*")) if isinstance(source, Path) else ():
            hashes[name] = file_hash(file)
    return hashes
