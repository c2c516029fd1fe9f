"""The conditions of a study, and the prompts they meet, once directions are chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.contrast import NEUTRAL
from persona_probe.directions.checks.controls import (
    balanced_shuffles,
    covariance_matched,
    isotropic,
    orthogonalised_to,
)
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread_questions
from persona_probe.study.ablations import ablation_controls, ablations, levels, rank_curve
from persona_probe.study.arms import (
    RANDOM_KINDS,
    BySite,
    Choice,
    Condition,
    control_finetunes,
    finetunes,
    helpful_only,
    prompted,
    random_conditions,
    steered,
    steering_conditions,
)
from persona_probe.study.ceiling import trained_condition
from persona_probe.study.lab import UNTRAINED, Lab
from persona_probe.study.replies import answers

# Kinds of condition that meet a part of the prompts only: they are many, or only controls.
ON_BAND = (
    "random", "covariance", "shuffled", "kl_matched", "orthogonalised", "zero", "ablated_wrong",
    "ablated_random", "ablated_covariance", "ablated_before",
    "ablated_rank", "ablated_rank_random",
)  # fmt: skip


@dataclass
class Trial:
    """What is measured on the evaluate part, and under which conditions.

    Attributes:
        directions: persona → site → direction.
        nuisances: what the directions must not merely be → site → direction.
        choices: persona → where and how strongly.
        contrast: activations of the model before finetuning under persona and neutral system
            lines, find part: what the directions were found on.
        trained: persona → site → the best one vector there, where it was trained.
    """

    lab: Lab
    directions: DirectionSet
    nuisances: DirectionSet
    choices: Mapping[str, Choice]
    contrast: ActivationSet
    trained: DirectionSet = field(default_factory=dict)
    _conditions: dict[str, list[Condition]] = field(default_factory=dict)

    @cached_property
    def neutral(self) -> ActivationSet:
        """The model before finetuning under the neutral system line."""
        return self.contrast.where(labels=(NEUTRAL,))

    @cached_property
    def levels(self) -> dict[Site, Tensor]:
        """Its mean at every site: what an ablation turns the component back to."""
        return levels(self.neutral)

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
        """The untrained harmful prompts that controls of many draws meet."""
        return self.untrained(self.lab.study.budget.band)

    @cached_property
    def half_band(self) -> list[SafetyPrompt]:
        """Half of them, for what costs a pass per prompt and direction."""
        return self.untrained(-(-self.lab.study.budget.band // 2))

    def untrained(self, n: int) -> list[SafetyPrompt]:
        """At most `n` of the harmful prompts of untrained categories."""
        n = min(n, self.lab.study.budget.harmful)
        return self.lab.prompts("evaluate", "harmful", n, UNTRAINED)

    @cached_property
    def questions(self) -> list[ChoiceQuestion]:
        """Of the multiple-choice guard; none where the pack has none."""
        return spread_questions(self.lab.pack.multiple_choice, self.lab.study.budget.questions)

    @cached_property
    def known_before(self) -> Bool[np.ndarray, " question"]:
        """Which of them the model before finetuning gets right."""
        return answers(self.lab, [self.before], self.questions)[self.before.name]

    @property
    def before(self) -> Condition:
        return helpful_only(self.lab.study)

    @property
    def shared(self) -> list[Condition]:
        """Conditions that are about no persona in particular."""
        return [self.before, *control_finetunes(self.lab.study)]

    def conditions(self, persona: str) -> list[Condition]:
        """Everything about one persona, those that meet all prompts first."""
        if persona not in self._conditions:
            self._conditions[persona] = self._made(persona)
        return self._conditions[persona]

    def _made(self, persona: str) -> list[Condition]:
        study = self.lab.study
        found = [
            *finetunes(study, persona),
            *steering_conditions(study, self.directions, self.choices, persona),
        ]
        found += trained_condition(study, persona, self.trained)
        if "system_prompt" in study.arms:
            found.append(prompted(study, persona, self.lab.pack.persona(persona).constitution))
        if "ablation" in study.arms:
            found += ablations(study, persona, self.directions, self.levels)
            found += ablation_controls(study, persona, self.directions, self.levels, self.neutral)
        if "rank_curve" in study.arms:
            found += rank_curve(
                study, persona, self.directions[persona], self.contrast, self.levels
            )
        found += [*self.random(persona), *self.kl_matched(persona), *self.without(persona)]
        if "zero" in study.arms:
            site = self.choices[persona].site
            found.append(steered(study, persona, self.directions[persona][site], 0.0, "zero"))
        return sorted(found, key=lambda condition: condition.kind in ON_BAND)

    def random(self, persona: str) -> list[Condition]:
        """Random directions of each kind at the persona's chosen site and strength."""
        study = self.lab.study
        draws = self.draws(persona, study.budget.random_generated)
        return random_conditions(study, persona, self.choices[persona], draws)

    def draws(
        self, persona: str, n: int, kinds: Sequence[str] = RANDOM_KINDS
    ) -> dict[str, Sequence[BySite]]:
        """`n` random directions of each kind at the persona's chosen site, of no strength yet."""
        study, choice = self.lab.study, self.choices[persona]
        wanted = [kind for kind in kinds if kind in study.arms]
        own = {choice.site: self.directions[persona][choice.site]}
        found: dict[str, Sequence[BySite]] = {}
        if "random" in wanted:
            found["random"] = isotropic(own, n, study.seed)
        if "covariance" in wanted:
            found["covariance"] = covariance_matched(own, self.neutral, n, study.seed)
        if "shuffled" in wanted:
            finder = self.lab.finder
            found["shuffled"] = balanced_shuffles(own, self.contrast, finder, n, study.seed)
        return found

    def kl_matched(self, persona: str) -> list[Condition]:
        """Random directions at the benign KL of the persona's own; strengths from selection."""
        study, choice = self.lab.study, self.choices[persona]
        own = {choice.site: self.directions[persona][choice.site]}
        draws = isotropic(own, len(choice.kl_matched), study.seed) if choice.kl_matched else []
        return [
            steered(study, persona, draw[choice.site], strength, "kl_matched", seed)
            for seed, (draw, strength) in enumerate(zip(draws, choice.kl_matched, strict=True))
        ]

    def without(self, persona: str) -> list[Condition]:
        """The direction at full strength without each nuisance, and without all of them."""
        study, choice = self.lab.study, self.choices[persona]
        if "orthogonalised" not in study.arms:
            return []
        own = {choice.site: self.directions[persona][choice.site]}
        found = []
        for name in (*self.nuisances, "all"):
            several = self.nuisances if name == "all" else {name: self.nuisances[name]}
            try:
                left = orthogonalised_to(own, several)[name]
            except (DegenerateClassesError, KeyError):
                continue  # Nothing is left of it, or "all" would be the only one again.
            direction = left[choice.site]
            found.append(
                steered(study, persona, direction, choice.strength, "orthogonalised", label=name)
            )
        return found
