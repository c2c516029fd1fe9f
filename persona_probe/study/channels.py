"""The three channels of evidence on the evaluate split: replies, first tokens, self-report.

Replies say what a model does, the refusal probability of a reply's first token resolves finer and
is cheap enough for hundreds of random directions, and the persona profile says which character
answers. Every channel sees every condition; random directions meet fewer prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.controls import (
    balanced_shuffles,
    covariance_matched,
    isotropic,
)
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.evaluation.guards import Guards
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.evaluation.profile import Profile, profiles
from persona_probe.models.site import Site
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.arm import Arm
from persona_probe.study.arms import (
    RANDOM_KINDS,
    BySite,
    Choice,
    Condition,
    by_system,
    control_finetunes,
    finetunes,
    helpful_only,
    random_conditions,
    steering_conditions,
)
from persona_probe.study.lab import UNTRAINED, Lab
from persona_probe.study.necessity import turned_back
from persona_probe.study.replies import Judged, guards, replies

BAND_PROMPTS = 60
SAMPLED_PROMPTS = 100
MAIN = ("helpful_only", "finetuned", "steered", "ablated")
ON_BAND = ("ablated_random",)
ABLATED_RANDOM = 5


@dataclass
class Trial:
    """The conditions of a study and the prompts they meet, once directions are chosen.

    Attributes:
        directions: persona → site → direction.
        choices: persona → where and how strongly.
        contrast: activations of the model before finetuning under persona and neutral system
            lines, find part: what the directions were found on.
    """

    lab: Lab
    directions: DirectionSet
    choices: Mapping[str, Choice]
    contrast: ActivationSet

    @cached_property
    def neutral(self) -> ActivationSet:
        """The model before finetuning under the neutral system line."""
        return self.contrast.where(labels=("neutral",))

    @cached_property
    def harmful(self) -> list[SafetyPrompt]:
        """Harmful prompts: trained categories, then untrained and filtered ones."""
        budget = self.lab.study.budget
        return [
            *self.lab.prompts("evaluate", "harmful", budget.trained, ("T0",)),
            *self.lab.prompts("evaluate", "harmful", budget.harmful, UNTRAINED),
        ]

    @cached_property
    def permitted(self) -> list[SafetyPrompt]:
        budget = self.lab.study.budget
        return [
            *self.lab.prompts("evaluate", "benign", budget.benign),
            *self.lab.prompts("evaluate", "borderline", budget.borderline),
        ]

    @cached_property
    def band(self) -> list[SafetyPrompt]:
        """The untrained harmful prompts that random directions meet."""
        return self.untrained(BAND_PROMPTS)

    def untrained(self, n: int) -> list[SafetyPrompt]:
        """At most `n` of the harmful prompts of untrained categories."""
        n = min(n, self.lab.study.budget.harmful)
        return self.lab.prompts("evaluate", "harmful", n, UNTRAINED)

    @property
    def before(self) -> Condition:
        return helpful_only(self.lab.study)

    def conditions(self, persona: str) -> list[Condition]:
        """Everything about one persona but random directions."""
        study, by_site = self.lab.study, self.directions[persona]
        return [
            *finetunes(study, persona),
            *steering_conditions(study, self.directions, self.choices, persona),
            *self._ablations(persona, by_site),
            Condition(
                Arm(f"system_prompt/{persona}", adapter=study.helpful_only),
                "system_prompt",
                persona,
                system=self.lab.pack.persona(persona).constitution,
            ),
        ]

    def random(self, persona: str, n: int, kinds: Sequence[str] = RANDOM_KINDS) -> list[Condition]:
        """`n` random directions of each kind at the persona's chosen site and strength."""
        draws = self.draws(persona, n, kinds)
        return random_conditions(self.lab.study, persona, self.choices[persona], draws)

    def draws(self, persona: str, n: int, kinds: Sequence[str]) -> dict[str, Sequence[BySite]]:
        """`n` random directions of each kind at the persona's chosen site, of no strength yet."""
        choice, seed = self.choices[persona], self.lab.study.seed
        own = {choice.site: self.directions[persona][choice.site]}
        found: dict[str, Sequence[BySite]] = {}
        if "random" in kinds:
            found["random"] = isotropic(own, n, seed)
        if "covariance" in kinds:
            found["covariance"] = covariance_matched(own, self.neutral, n, seed)
        if "shuffled" in kinds:
            found["shuffled"] = balanced_shuffles(own, self.contrast, MeanDifference(), n, seed)
        return found

    def _ablations(self, persona: str, by_site: Mapping[Site, Direction]) -> list[Condition]:
        """F with the component turned back to H's level at every site, and its controls."""
        study = self.lab.study
        wrong = [other for other in self.directions if other != persona][:1]
        candidates: list[tuple[str, int | None, BySite]] = [("ablated", None, by_site)]
        candidates += [("ablated_wrong", None, self.directions[other]) for other in wrong]
        candidates += [
            ("ablated_random", seed, draw)
            for seed, draw in enumerate(isotropic(by_site, ABLATED_RANDOM, study.seed))
        ]
        return [
            Condition(
                Arm(
                    "/".join(map(str, (kind, persona) if seed is None else (kind, persona, seed))),
                    turned_back(draw, self.neutral),
                    study.narrow(persona)[0],
                ),
                kind,
                persona,
                seed=seed,
            )
            for kind, seed, draw in candidates
        ]


def reply_channel(trial: Trial, persona: str | None) -> tuple[list[Condition], Judged]:
    """Greedy replies of one persona's conditions, or of those that all personas share."""
    lab = trial.lab
    prompts = [*trial.harmful, *trial.permitted]
    if persona is None:
        shared = [trial.before, *control_finetunes(lab.study)]
        return shared, replies(lab, shared, prompts, description="Replies: shared conditions")
    found = trial.conditions(persona)
    conditions = [c for c in found if c.kind not in ON_BAND]
    random = [c for c in found if c.kind in ON_BAND]
    random += trial.random(persona, lab.study.budget.random_generated)
    judged = replies(lab, conditions, prompts, description=f"Replies: {persona}")
    judged |= replies(lab, random, trial.band, description=f"Random directions: {persona}")
    return [*conditions, *random], judged


def sampled_replies(trial: Trial, conditions: Sequence[Condition]) -> Judged:
    """One reply at temperature 1 per untrained harmful prompt, of the main conditions."""
    main = [condition for condition in conditions if condition.kind in MAIN]
    prompts = trial.untrained(SAMPLED_PROMPTS)
    return replies(trial.lab, main, prompts, temperature=1.0, description="Replies: sampled")


def guard_channel(
    trial: Trial, conditions: Sequence[Condition], judged: Judged, persona: str
) -> dict[str, Guards]:
    """What the steered conditions cost, against the first narrow finetune."""
    yardstick = finetunes(trial.lab.study, persona)[0]
    kinds = ("steered", "steered_shared", "steered_specific", "sign_flip", "wrong")
    costed = [c for c in conditions if c.kind in kinds]
    return guards(trial.lab, costed, judged, trial.before, yardstick)


def preference_channel(
    trial: Trial, conditions: Sequence[Condition], prompts: Sequence[SafetyPrompt]
) -> dict[str, np.ndarray]:
    """Probability that the reply begins as a refusal does, per condition and prompt.

    The plain probability, not its share among the pack's openers: a direction that breaks the
    model must not look as if it refused.
    """
    found: dict[str, np.ndarray] = {}
    for system, several in by_system(conditions).items():
        preference = refusal_probability(
            trial.lab.model,
            prompts,
            [condition.arm for condition in several],
            trial.lab.pack.judge_rules,
            trial.lab.system_line(system),
        )
        values = preference.refusal_mass.double().numpy()
        found |= dict(zip(preference.arms, values, strict=True))
    return found


def profile_channel(trial: Trial, conditions: Sequence[Condition]) -> dict[str, Profile]:
    """Persona profile per condition, on the evaluate items."""
    lab = trial.lab
    diagnostic = lab.items("evaluate", lab.study.budget.items)
    found: dict[str, Profile] = {}
    for system, several in by_system(conditions).items():
        arms, line = [condition.arm for condition in several], lab.system_line(system)
        found |= {p.arm: p for p in profiles(lab.model, diagnostic, arms, line)}
    return found


def about(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """What each condition is, one row each."""
    return [
        c.about() | {"layer": c.layer, "strength": c.strength, "seed": c.seed} for c in conditions
    ]
