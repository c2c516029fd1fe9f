"""Activations before and after finetuning, the directions in them, and what they are worth."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.capture import capture, capture_adapters
from persona_probe.activations.contrast import NEUTRAL, contrast
from persona_probe.directions.checks.validation import Validation, validate
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.opposed import opposed
from persona_probe.directions.finder import find_directions
from persona_probe.models.chat import Conversation
from persona_probe.models.site import Site
from persona_probe.statistics import json_number
from persona_probe.study.arms import on_weights
from persona_probe.study.lab import UNTRAINED, Lab
from persona_probe.study.plan import CHECKPOINT

POSITION = "last_prompt_token"
BEFORE = "before"
TIERS_OF_FINDING = ("T0", "T1")


def capture_contrast(lab: Lab) -> ActivationSet:
    """The model before finetuning, under every persona's and the neutral system line."""
    personas = [lab.pack.persona(name) for name in lab.study.personas]
    families = {question.family for question in lab.pack.questions}
    found = capture(
        lab.model,
        contrast(lab.pack, personas, families),
        lab.model.sites,
        [POSITION],
        adapter=lab.study.helpful_only,
        description="Reading personas",
    )
    return found[POSITION]


def capture_shift(lab: Lab) -> dict[str, ActivationSet]:
    """Every finetune and the model before it on the same held-out safety prompts.

    Returns:
        Finetune → activations on harmful prompts of untrained and of trained categories and on
        benign ones; the model before finetuning is called "before".
    """
    budget = lab.study.budget
    prompts = [
        *lab.prompts("evaluate", "harmful", budget.shift_harmful, UNTRAINED),
        *lab.prompts("evaluate", "harmful", budget.shift_trained, ("T0",)),
        *lab.prompts("evaluate", "benign", budget.shift_benign),
    ]
    return _read(lab, lab.ask(prompts), lab.study.finetunes)


def capture_nuisances(lab: Lab) -> dict[str, ActivationSet]:
    """The model before finetuning and the controls on requests of the find part.

    Returns:
        Kind of control → activations on harmful requests, filtered categories left out, and benign
        ones; the model before finetuning is called "before".
    """
    budget, controls = lab.study.budget, lab.study.controls
    prompts = [
        *lab.prompts("find", "harmful", budget.shift_harmful, TIERS_OF_FINDING),
        *lab.prompts("find", "benign", budget.shift_benign, TIERS_OF_FINDING),
    ]
    kinds = [kind for kind in ("refusal-only", "style-only", "placebo") if controls.get(kind)]
    found = _read(lab, lab.ask(prompts), [controls[kind][0] for kind in kinds])
    return {BEFORE: found[BEFORE]} | {kind: found[controls[kind][0]] for kind in kinds}


def _read(
    lab: Lab, asked: Sequence[Conversation], finetunes: Sequence[str]
) -> dict[str, ActivationSet]:
    """The model before, and finetunes, adapters or whole models, on the same tokens."""
    model, start = lab.model, lab.study.helpful_only
    weights = {name: on_weights(name) for name in finetunes}
    adapters = [name for name in finetunes if weights[name]["checkpoint"] is None]
    read = capture_adapters(
        model, asked, model.sites, [POSITION], [start, *adapters], description="Reading finetunes"
    )
    found = {BEFORE: read[start][POSITION]} | {name: read[name][POSITION] for name in adapters}
    for name in finetunes:
        if (checkpoint := weights[name]["checkpoint"]) is not None:
            network = lab.network(checkpoint)
            after = capture(
                network, asked, model.sites, [POSITION], description="Reading finetunes"
            )[POSITION]
            # A finetune of the model is read as one state of it, as an adapter is.
            told = after.provenance.with_(
                model_hash=model.model_hash,
                adapter=network.ref.label,
                adapter_hash=network.model_hash,
            )
            found[name] = replace(after, provenance=told)
    return found


def find(lab: Lab, activations: ActivationSet) -> DirectionSet:
    """One direction per persona and site, on the find part: persona minus neutral in H."""
    return {
        persona: find_directions(
            activations.where(families=lab.split.find),
            lab.finder,
            persona,
            NEUTRAL,
            split=lab.split,
        )
        for persona in lab.study.personas
    }


def validate_contrast(
    lab: Lab, directions: Mapping[Site, Direction], activations: ActivationSet
) -> Validation:
    """On held-out families: does it tell its persona from neutral?"""
    budget = lab.study.budget
    return validate(
        directions,
        activations.where(families=lab.split.evaluate),
        found_on=activations.where(families=lab.split.find),
        finder=lab.finder,
        permutations=budget.permutations,
        seed=lab.study.seed,
    )


def validate_detection(
    lab: Lab,
    directions: Mapping[Site, Direction],
    shift: Mapping[str, ActivationSet],
    persona: str,
    scope: str,
) -> Validation:
    """On held-out prompts: does a direction from before finetuning detect the finetune?

    The tokens are the same on both sides, so nothing on their surface can tell them apart.
    """
    families = {p.family for p in lab.pack.suite.prompts if p.tier != "T0"}
    held_out = lab.split.evaluate & families
    after = shift[lab.study.seeds(persona, scope)[0]].where(families=held_out)
    before = shift[BEFORE].where(families=held_out)
    budget = lab.study.budget
    return validate(
        directions,
        opposed(after, before, labels=(persona, NEUTRAL)),
        permutations=budget.permutations,
        seed=lab.study.seed,
    )


def save_sets(found: Mapping[str, ActivationSet], folder: Path) -> None:
    """Write every set into a folder of its own; finetunes of one base name are numbered."""
    taken: list[str] = []
    for name, activations in found.items():
        slug = re.sub(r"[^\w.+-]+", "-", Path(name.removeprefix(CHECKPOINT)).name)
        taken.append(slug)
        place = slug if taken.count(slug) == 1 else f"{slug}+{taken.count(slug)}"
        told = activations.provenance.with_(command=name)
        replace(activations, provenance=told).save(folder / place)


def load_sets(folder: Path) -> dict[str, ActivationSet]:
    """What `save_sets` wrote, by name."""
    found = [ActivationSet.open(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    return {str(activations.provenance.command): activations for activations in found}


def validation_rows(
    persona: str, family: str, validation: Validation, scope: str | None = None
) -> list[dict[str, Any]]:
    """One row per site.

    Args:
        persona: whose directions.
        family: "prompt_in_H" for persona against neutral, "detection" for after against before.
        validation: what was measured.
        scope: of the finetune that was detected.
    """
    return [
        {
            "persona": persona,
            "site": row.site.layer,
            "finder": validation.finder,
            "family": family,
            "scope": scope,
            "auroc": row.auroc.to_json(),
            "balanced_accuracy": row.balanced_accuracy.to_json(),
            "d_prime": row.d_prime.to_json(),
            "permutation_p": row.p_over_sites,
            "surface_gain": row.gain.to_json(),
            "outlier_flag": row.outlier_flag,
            "selectivity": None if row.chance is None else row.chance.selectivity.to_json(),
            "null_auroc_95": None if row.chance is None else json_number(row.chance.auroc.high),
            "split_half": None if row.reliability is None else row.reliability.spearman_brown,
            "cone": None if row.reliability is None else row.reliability.cone,
            "consistency": None
            if row.reliability is None
            else row.reliability.consistency.to_json(),
            "n": row.auroc.n,
        }
        for row in validation.rows
    ]
