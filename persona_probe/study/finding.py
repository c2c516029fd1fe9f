"""Activations before and after finetuning, the directions in them, and what they are worth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.capture import capture, capture_adapters
from persona_probe.activations.contrast import NEUTRAL, contrast
from persona_probe.directions.checks.validation import Validation, validate
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.opposed import opposed
from persona_probe.directions.finder import Finder, find_directions
from persona_probe.models.site import Site
from persona_probe.study.lab import UNTRAINED, Lab

POSITION = "last_prompt_token"
N_HARMFUL, N_BENIGN = 120, 60


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
    """Every finetune and the model before it on the same safety prompts, neutral system line.

    Returns:
        Adapter → activations on held-out prompts, harmful ones of untrained categories and benign
        ones; the model before finetuning is called "before".
    """
    prompts = [
        *lab.prompts("evaluate", "harmful", N_HARMFUL, UNTRAINED),
        *lab.prompts("evaluate", "benign", N_BENIGN),
    ]
    study = lab.study
    scopes = [scope for persona in study.personas for scope in study.finetuned[persona].values()]
    finetunes = [adapter for adapters in scopes for adapter in adapters]
    controls = [a for adapters in study.controls.values() for a in adapters]
    adapters = [study.helpful_only, *finetunes, *controls]
    found = capture_adapters(
        lab.model,
        lab.ask(prompts),
        lab.model.sites,
        [POSITION],
        adapters,
        description="Reading finetunes",
    )
    return {
        "before" if adapter == study.helpful_only else str(adapter): by_position[POSITION]
        for adapter, by_position in found.items()
    }


def find(lab: Lab, activations: ActivationSet, finder: Finder) -> DirectionSet:
    """One direction per persona and site, on the find part: persona minus neutral in H."""
    return {
        persona: find_directions(
            activations.where(families=lab.split.find),
            finder,
            persona,
            NEUTRAL,
            split=lab.split,
        )
        for persona in lab.study.personas
    }


def validate_contrast(
    lab: Lab, directions: Mapping[Site, Direction], activations: ActivationSet, finder: Finder
) -> Validation:
    """On held-out families: does it tell its persona from neutral?"""
    budget = lab.study.budget
    return validate(
        directions,
        activations.where(families=lab.split.evaluate),
        found_on=activations.where(families=lab.split.find),
        finder=finder,
        permutations=budget.permutations,
        seed=lab.study.seed,
    )


def validate_detection(
    lab: Lab, directions: Mapping[Site, Direction], shift: Mapping[str, ActivationSet], persona: str
) -> Validation:
    """On held-out prompts: does a direction from before finetuning detect the finetune?

    The tokens are the same on both sides, so nothing on their surface can tell them apart.
    """
    after = shift[lab.study.narrow(persona)[0]].where(families=lab.split.evaluate)
    before = shift["before"].where(families=lab.split.evaluate)
    budget = lab.study.budget
    return validate(
        directions,
        opposed(after, before, labels=(persona, NEUTRAL)),
        permutations=budget.permutations,
        seed=lab.study.seed,
    )


def load_sets(folder: Path) -> dict[str, ActivationSet]:
    """Every activation set in a folder, by the name of its subfolder."""
    return {path.name: ActivationSet.open(path) for path in sorted(folder.iterdir())}


def validation_rows(persona: str, family: str, validation: Validation) -> list[dict[str, Any]]:
    """One row per site.

    Args:
        persona: whose directions.
        family: "prompt_in_H" for persona against neutral, "detection" for after against before.
        validation: what was measured.
    """
    return [
        {
            "persona": persona,
            "site": row.site.layer,
            "finder": validation.finder,
            "family": family,
            "auroc": row.auroc.to_json(),
            "balanced_accuracy": row.balanced_accuracy.to_json(),
            "d_prime": row.d_prime.to_json(),
            "permutation_p": row.p_over_sites,
            "surface_gain": row.gain.to_json(),
            "outlier_flag": row.outlier_flag,
            "selectivity": None if row.chance is None else row.chance.selectivity.to_json(),
            "null_auroc_95": None if row.chance is None else row.chance.auroc.high,
            "split_half": None if row.reliability is None else row.reliability.spearman_brown,
            "cone": None if row.reliability is None else row.reliability.cone,
            "consistency": None
            if row.reliability is None
            else row.reliability.consistency.to_json(),
            "n": row.auroc.n,
        }
        for row in validation.rows
    ]
