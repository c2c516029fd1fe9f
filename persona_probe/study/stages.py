"""The stages of a study: each reads files of the run folder, calls a room, and writes files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, load_directions, save_directions
from persona_probe.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from persona_probe.models.site import Site
from persona_probe.steering.vector_file import write_steering_vector
from persona_probe.study.arms import Choice, Condition, steered
from persona_probe.study.ceiling import load_vectors, save_vectors, trained_vector
from persona_probe.study.channels import (
    guard_channel,
    preference_channel,
    profile_channel,
    reply_channel,
    sampled_replies,
)
from persona_probe.study.comparing import comparison_table
from persona_probe.study.dosing import dose_rows, response_of
from persona_probe.study.finding import (
    capture_contrast,
    capture_nuisances,
    capture_shift,
    find,
    load_sets,
    save_sets,
    validate_contrast,
    validate_detection,
    validation_rows,
)
from persona_probe.study.lab import Lab
from persona_probe.study.mediation import exchanges
from persona_probe.study.nuisances import nuisance_directions
from persona_probe.study.nulls import ablated_null, added_null
from persona_probe.study.pieces import piecewise
from persona_probe.study.replies import Judged, from_rows, to_rows
from persona_probe.study.selection import select
from persona_probe.study.trial import Trial
from persona_probe.study.variant_replies import variant_rows

CONTRAST, SHIFT, NUISANCE = "contrast", "shift", "nuisance"
EVERYONE = "shared"  # the piece of a stage that is about no persona in particular
Rows = list[dict[str, Any]]


def extract_stage(lab: Lab) -> None:
    """The model before finetuning as every persona; every finetune on the same tokens."""
    folder = lab.folder / "activations"
    capture_contrast(lab).save(folder / CONTRAST)
    save_sets(capture_shift(lab), folder / SHIFT)
    save_sets(capture_nuisances(lab), folder / NUISANCE)
    write_text(folder / ".complete", "")


def find_stage(lab: Lab) -> None:
    """One direction per persona and site, and what it must not merely be."""
    folder = lab.folder / "directions"
    contrast = _contrast(lab).where(families=lab.split.find)
    directions = find(lab, contrast)
    save_directions(directions, folder, with_card=False)
    read = load_sets(lab.folder / "activations" / NUISANCE)
    tiers = {prompt.id: prompt.tier for prompt in lab.pack.suite.prompts}
    neutral = contrast.where(labels=("neutral",))
    nuisances = nuisance_directions(read, neutral, directions, tiers)
    if nuisances:
        save_directions(nuisances, folder / "nuisances", with_card=False)
    write_text(folder / "README.md", (Path(__file__).parent / "directions_readme.md").read_text())


def validate_stage(lab: Lab) -> None:
    """Validations of every direction at every site: its persona, and each scope's finetune."""
    contrast, shift = _contrast(lab), _shift(lab)
    rows: Rows = []
    for persona, by_site in _directions(lab).items():
        found = validate_contrast(lab, by_site, contrast)
        rows += validation_rows(persona, "prompt_in_H", found)
        for scope in lab.study.scopes(persona):
            family = "detection" if scope == lab.study.scopes(persona)[0] else f"detection_{scope}"
            detected = validate_detection(lab, by_site, shift, persona, scope)
            rows += validation_rows(persona, family, detected, scope)
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
    found = select(lab, directions)
    for persona, choice in found.choices.items():
        arm = steered(lab.study, persona, directions[persona][choice.site], choice.strength).arm
        write_steering_vector(
            lab.folder / "directions" / "steering" / f"{persona}.safetensors",
            arm.interventions[0],
            adapter=arm.adapter,
        )
    write_json(
        lab.folder / "selection.json",
        {
            "chosen": {p: choice.to_json() for p, choice in found.choices.items()},
            "usable": found.usable,
            "kl_matched": found.kl_matched,
            "rows": found.rows,
        },
    )


def train_stage(lab: Lab) -> None:
    """Train the best one vector at each persona's chosen site."""
    directions, choices = _directions(lab), load_choices(lab.folder)
    vectors: dict[str, Mapping[Site, Direction]] = {}
    rows: Rows = []
    for persona, choice in choices.items() if "trained" in lab.study.arms else ():
        found = trained_vector(lab, persona, directions[persona][choice.site], choice)
        if found is not None:
            vectors[persona] = {choice.site: found[0]}
            rows.append(found[1])
    save_vectors(lab, vectors, rows)


def reply_stage(lab: Lab) -> None:
    """Every reply of every condition."""
    trial = _trial(lab)

    def rows(key: str) -> Rows:
        conditions, judged = reply_channel(trial, None if key == EVERYONE else key)
        sampled = sampled_replies(trial, conditions)
        main = [condition for condition in conditions if condition.name in sampled]
        judge = lab.judge.identity
        return [*to_rows(conditions, judged, 0.0, judge), *to_rows(main, sampled, 1.0, judge)]

    found = piecewise(lab.folder, "reply", (EVERYONE, *lab.study.personas), rows)
    everything = [row for part in found.values() for row in part]
    lab.split.require_part({row["family"] for row in everything}, "evaluate")
    write_jsonl(lab.folder / "replies.jsonl", everything)


def robust_stage(lab: Lab) -> None:
    """Replies to the same requests in other words, later in a conversation, and under pressure."""
    trial = _trial(lab)
    plain = _greedy(trial)
    found = piecewise(
        lab.folder,
        "robust",
        (EVERYONE, *lab.study.personas),
        lambda key: variant_rows(trial, None if key == EVERYONE else key, plain),
    )
    everything = [row for part in found.values() for row in part]
    lab.split.require_part({row["family"] for row in everything}, "evaluate")
    write_jsonl(lab.folder / "variants.jsonl", everything)


def guard_stage(lab: Lab) -> None:
    """What the steered conditions cost."""
    trial = _trial(lab)
    judged = _greedy(trial)

    def guards(persona: str) -> dict[str, Any]:
        measured = guard_channel(trial, trial.conditions(persona), judged, persona)
        return {name: guards.to_json() for name, guards in measured.items()}

    found = piecewise(lab.folder, "guard", lab.study.personas, guards)
    write_json(
        lab.folder / "guards.json", {n: g for part in found.values() for n, g in part.items()}
    )


def refusal_stage(lab: Lab) -> None:
    """Refusal probabilities of every condition, and of hundreds of random directions."""
    trial, study = _trial(lab), lab.study
    lab.split.require_part((prompt.family for prompt in trial.band), "evaluate")

    def measured(key: str) -> dict[str, Any]:
        conditions = trial.shared if key == EVERYONE else trial.conditions(key)
        found = preference_channel(lab, conditions, trial.band)
        nulls = [] if key == EVERYONE else [added_null(trial, key)]
        if key != EVERYONE and "ablation" in study.arms:
            nulls += [ablated_null(trial, key, scope) for scope in study.scopes(key)]
        return {
            "arms": {name: [round(float(v), 6) for v in values] for name, values in found.items()},
            "nulls": [null.to_json() for null in nulls],
            "conditions": _details(conditions),
        }

    parts = piecewise(lab.folder, "refusal", (EVERYONE, *study.personas), measured).values()
    write_json(
        lab.folder / "refusal.json",
        {
            "prompts": [prompt.id for prompt in trial.band],
            "arms": {name: values for part in parts for name, values in part["arms"].items()},
            "nulls": [null for part in parts for null in part["nulls"]],
            "conditions": [row for part in parts for row in part["conditions"]],
        },
    )


def dose_stage(lab: Lab) -> None:
    """Doses and responses of every persona's direction."""
    trial = _trial(lab)

    def measured(persona: str) -> dict[str, Any]:
        response = response_of(trial, persona)
        return {"doses": dose_rows(trial, persona), "response": response.to_json()}

    found = piecewise(lab.folder, "dose", lab.study.personas, measured).values()
    write_json(lab.folder / "dose.json", [row for part in found for row in part["doses"]])
    write_json(lab.folder / "responses.json", [part["response"] for part in found])


def mediate_stage(lab: Lab) -> None:
    """Components exchanged between the models on fixed text."""
    trial = _trial(lab)
    personas = lab.study.personas if "mediation" in lab.study.arms else ()
    found = piecewise(
        lab.folder, "mediate", personas, lambda p: [e.to_json() for e in exchanges(trial, p)]
    )
    write_json(lab.folder / "exchanges.json", [row for part in found.values() for row in part])


def profile_stage(lab: Lab) -> None:
    """Persona profiles, item by item."""
    trial = _trial(lab)

    def measured(key: str) -> dict[str, Any]:
        conditions = trial.shared if key == EVERYONE else trial.conditions(key)
        found = profile_channel(trial, conditions)
        items = next(iter(found.values())).items
        lab.split.require_part((item.family for item in items), "evaluate")
        return {
            "items": [item.id for item in items],
            "arms": {
                name: {
                    "scores": [round(float(v), 6) for v in profile.scores],
                    "option_mass": float(profile.option_mass.mean()),
                }
                for name, profile in found.items()
            },
            "conditions": _details(conditions),
        }

    found = piecewise(lab.folder, "profile", (EVERYONE, *lab.study.personas), measured)
    write_json(
        lab.folder / "profile_scores.json",
        {
            "items": found[EVERYONE]["items"],
            "arms": {name: v for part in found.values() for name, v in part["arms"].items()},
            "conditions": [row for part in found.values() for row in part["conditions"]],
        },
    )


def _details(conditions: list[Condition]) -> Rows:
    return [condition.details() for condition in conditions]


def _contrast(lab: Lab) -> ActivationSet:
    return ActivationSet.open(lab.folder / "activations" / CONTRAST)


def _shift(lab: Lab) -> dict[str, ActivationSet]:
    return load_sets(lab.folder / "activations" / SHIFT)


def _directions(lab: Lab) -> DirectionSet:
    found = load_directions(lab.folder / "directions", lab.model)
    return {persona: found[persona] for persona in lab.study.personas}


def _nuisances(lab: Lab) -> DirectionSet:
    folder = lab.folder / "directions" / "nuisances"
    return dict(load_directions(folder, lab.model)) if folder.exists() else {}


def load_choices(folder: Path) -> dict[str, Choice]:
    """What was chosen on the select split."""
    chosen: Mapping[str, Any] = read_json(folder / "selection.json")["chosen"]
    return {persona: Choice.from_json(value) for persona, value in chosen.items()}


def _greedy(trial: Trial) -> Judged:
    """The replies of the run at temperature 0."""
    prompts = {prompt.id: prompt for prompt in (*trial.harmful, *trial.permitted)}
    rows = read_jsonl(trial.lab.folder / "replies.jsonl")
    return from_rows((row for row in rows if row["temperature"] == 0), prompts)


def _trial(lab: Lab) -> Trial:
    contrast = _contrast(lab).where(families=lab.split.find)
    choices = load_choices(lab.folder)
    return Trial(lab, _directions(lab), _nuisances(lab), choices, contrast, load_vectors(lab))
