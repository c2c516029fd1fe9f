"""The stages of a study: each reads files of the run folder, calls a room, and writes files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction_set import DirectionSet, load_directions, save_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from persona_probe.models.site import Site
from persona_probe.steering.vector_file import write_steering_vector
from persona_probe.study.arms import (
    Choice,
    Condition,
    control_finetunes,
    random_conditions,
    steered,
)
from persona_probe.study.channels import (
    Trial,
    about,
    guard_channel,
    preference_channel,
    profile_channel,
    reply_channel,
    sampled_replies,
)
from persona_probe.study.comparing import comparison_table
from persona_probe.study.finding import (
    capture_contrast,
    capture_shift,
    find,
    load_sets,
    validate_contrast,
    validate_detection,
    validation_rows,
)
from persona_probe.study.lab import Lab
from persona_probe.study.replies import from_rows, to_rows
from persona_probe.study.selection import select

CONTRAST, SHIFT = "contrast", "shift"
DOSE_SEEDS = 10
Rows = list[dict[str, Any]]


def extract_stage(lab: Lab) -> None:
    """The model before finetuning as every persona; every finetune on the same tokens."""
    folder = lab.folder / "activations"
    capture_contrast(lab).save(folder / CONTRAST)
    for name, found in capture_shift(lab).items():
        found.save(folder / SHIFT / name)
    write_text(folder / ".complete", "")


def directions_stage(lab: Lab) -> None:
    """One direction per persona and site."""
    folder = lab.folder / "directions"
    save_directions(find(lab, _contrast(lab), MeanDifference()), folder, with_card=False)
    write_text(folder / "README.md", (Path(__file__).parent / "directions_readme.md").read_text())


def validate_stage(lab: Lab) -> None:
    """Both validations of every direction at every site."""
    contrast, shift = _contrast(lab), _shift(lab)
    rows: Rows = []
    for persona, by_site in _directions(lab).items():
        found = validate_contrast(lab, by_site, contrast, MeanDifference())
        rows += validation_rows(persona, "prompt_in_H", found)
        rows += validation_rows(
            persona, "detection", validate_detection(lab, by_site, shift, persona)
        )
    write_json(lab.folder / "validation.json", rows)


def compare_stage(lab: Lab) -> None:
    """The finetuning shift against directions from before it."""
    reliabilities: dict[str, dict[Site, float]] = {}
    for row in read_json(lab.folder / "validation.json"):
        if row["split_half"] is not None:
            reliabilities.setdefault(row["persona"], {})[Site(row["site"])] = row["split_half"]
    table = comparison_table(lab, _directions(lab), _shift(lab), reliabilities)
    write_json(lab.folder / "comparison.json", table)


def select_stage(lab: Lab) -> None:
    """Choose site and strength on the select split; write the vectors that steer."""
    directions = _directions(lab)
    choices, rows = select(lab, directions)
    for persona, choice in choices.items():
        arm = steered(lab.study, persona, directions[persona][choice.site], choice.strength).arm
        write_steering_vector(
            lab.folder / "directions" / "steering" / f"{persona}.safetensors",
            arm.interventions[0],
            adapter=arm.adapter,
        )
    chosen = {persona: choice.to_json() for persona, choice in choices.items()}
    write_json(lab.folder / "selection.json", {"chosen": chosen, "rows": rows})


def replies_stage(lab: Lab) -> None:
    """Every reply of every condition; one part file per persona, so that a killed run goes on."""
    trial = _trial(lab)
    parts = [None, *lab.study.personas]
    for persona in parts:
        part = _part(lab, persona)
        if part.exists():
            continue
        conditions, judged = reply_channel(trial, persona)
        sampled = sampled_replies(trial, conditions)
        main = [condition for condition in conditions if condition.name in sampled]
        rows = [*to_rows(conditions, judged, 0.0), *to_rows(main, sampled, 1.0)]
        write_jsonl(part, rows)
    rows = [row for persona in parts for row in read_jsonl(_part(lab, persona))]
    write_jsonl(lab.folder / "replies.jsonl", rows)
    for persona in parts:
        _part(lab, persona).unlink()


def guards_stage(lab: Lab) -> None:
    """What the steered conditions cost."""
    trial = _trial(lab)
    prompts = {prompt.id: prompt for prompt in (*trial.harmful, *trial.permitted)}
    greedy = (row for row in read_jsonl(lab.folder / "replies.jsonl") if row["temperature"] == 0)
    judged = from_rows(greedy, prompts)
    found: dict[str, Any] = {}
    for persona in lab.study.personas:
        measured = guard_channel(trial, trial.conditions(persona), judged, persona)
        found |= {name: guards.to_json() for name, guards in measured.items()}
    write_json(lab.folder / "guards.json", found)


def refusal_stage(lab: Lab) -> None:
    """Refusal probabilities: every condition, hundreds of random directions, and doses."""
    trial = _trial(lab)
    lab.split.require_part((prompt.family for prompt in trial.band), "evaluate")
    shared = [trial.before, *control_finetunes(lab.study)]
    found = preference_channel(trial, shared, trial.band)
    conditions, null, doses = list(shared), {}, []
    for persona in lab.study.personas:
        own = trial.conditions(persona)
        conditions += own
        found |= preference_channel(trial, own, trial.band)
        draws = trial.random(persona, lab.study.budget.random_fast, ("random", "covariance"))
        means = {
            name: float(values.mean())
            for name, values in preference_channel(trial, draws, trial.band).items()
        }
        null[persona] = {
            kind: [means[c.name] for c in draws if c.kind == kind]
            for kind in dict.fromkeys(c.kind for c in draws)
        }
        doses += _doses(trial, persona)
    write_json(lab.folder / "dose.json", doses)
    write_json(
        lab.folder / "refusal.json",
        {
            "prompts": [prompt.id for prompt in trial.band],
            "arms": {name: [round(float(v), 6) for v in values] for name, values in found.items()},
            "null": null,
            "conditions": about(conditions),
        },
    )


def profiles_stage(lab: Lab) -> None:
    """Persona profiles, item by item."""
    trial = _trial(lab)
    conditions = [trial.before, *control_finetunes(lab.study)]
    for persona in lab.study.personas:
        conditions += trial.conditions(persona)
        conditions += trial.random(persona, lab.study.budget.random_generated)
    found = profile_channel(trial, conditions)
    items = next(iter(found.values())).items
    lab.split.require_part((item.family for item in items), "evaluate")
    write_json(
        lab.folder / "profile_scores.json",
        {
            "items": [item.id for item in items],
            "arms": {
                name: {
                    "scores": [round(float(v), 6) for v in profile.scores],
                    "option_mass": float(profile.option_mass.mean()),
                }
                for name, profile in found.items()
            },
            "conditions": about(conditions),
        },
    )


def _doses(trial: Trial, persona: str) -> Rows:
    """Refusal probability against strength: the direction, its reverse, and random ones."""
    lab, choice = trial.lab, trial.choices[persona]
    prompts = [*trial.band, *trial.permitted[: len(trial.band)]]
    harmful = np.array([prompt.kind == "harmful" for prompt in prompts])
    own = trial.directions[persona][choice.site]
    draws = trial.draws(persona, DOSE_SEEDS, ("random", "covariance"))
    conditions: list[Condition] = []
    for strength in (0.0, *lab.study.strengths):
        direction = steered(lab.study, persona, own, strength, "direction")
        flipped = steered(lab.study, persona, -own, strength, "sign_flip")
        at = Choice(choice.site, strength)
        random = random_conditions(lab.study, persona, at, draws)
        conditions += [_at(c, strength) for c in (direction, flipped, *random)]
    found = preference_channel(trial, conditions, prompts)
    return [
        {
            "persona": persona,
            "arm_kind": c.kind,
            "strength": c.strength,
            "seed": c.seed,
            "refusal_probability": float(found[c.name][harmful].mean()),
            "over_refusal_probability": float(found[c.name][~harmful].mean()),
            "n": int(harmful.sum()),
        }
        for c in conditions
    ]


def _at(condition: Condition, strength: float) -> Condition:
    """The condition under a name that tells strengths apart."""
    return replace(condition, arm=replace(condition.arm, name=f"{condition.name}@{strength:g}"))


def _contrast(lab: Lab) -> ActivationSet:
    return ActivationSet.open(lab.folder / "activations" / CONTRAST)


def _shift(lab: Lab) -> dict[str, ActivationSet]:
    return load_sets(lab.folder / "activations" / SHIFT)


def _directions(lab: Lab) -> DirectionSet:
    found = load_directions(lab.folder / "directions", lab.model)
    return {persona: found[persona] for persona in lab.study.personas}


def load_choices(folder: Path) -> dict[str, Choice]:
    """What was chosen on the select split."""
    chosen: Mapping[str, Any] = read_json(folder / "selection.json")["chosen"]
    return {persona: Choice.from_json(value) for persona, value in chosen.items()}


def _trial(lab: Lab) -> Trial:
    contrast = _contrast(lab).where(families=lab.split.find)
    return Trial(lab, _directions(lab), load_choices(lab.folder), contrast)


def _part(lab: Lab, persona: str | None) -> Path:
    return lab.folder / f"replies.{persona or 'shared'}.part.jsonl"
