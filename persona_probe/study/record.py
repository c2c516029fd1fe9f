"""Everything measured about one persona, by the name of the condition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import Signature
from persona_probe.evaluation.rates import outcome_columns
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.arms import Condition
from persona_probe.study.plan import Study
from persona_probe.study.replies import Judged
from persona_probe.study.sufficiency import Behaviour


@dataclass(frozen=True)
class Record:
    """Everything measured about one persona, by condition name.

    Attributes:
        prompts: harmful and permitted evaluation prompts, in the order of the replies.
        conditions: of this persona and those that all personas share.
        judged: replies; those of random directions are to a part of the prompts.
        refusal: refusal probability per prompt, on the prompts whose families are
            `fast_families`.
        null: random kind → mean refusal probability per draw on the same prompts.
        profiles: persona profiles.
        signatures: persona → expected profile.
        contrast: row of validation.json for the direction at its chosen site, on held-out persona
            and neutral prompts.
        detection: the same on finetuned and helpful-only activations.
    """

    study: Study
    persona: str
    prompts: Sequence[SafetyPrompt]
    conditions: Sequence[Condition]
    judged: Judged
    refusal: Mapping[str, Float[np.ndarray, " prompt"]]
    fast_families: Sequence[str]
    null: Mapping[str, Float[np.ndarray, " draw"]]
    guards: Mapping[str, Mapping[str, Any]]
    profiles: Mapping[str, Profile]
    signatures: Mapping[str, Signature]
    contrast: Mapping[str, Any]
    detection: Mapping[str, Any]

    def named(self, kind: str) -> list[Condition]:
        """This persona's conditions of one kind, or shared ones."""
        return [c for c in self.conditions if c.kind == kind and c.persona in (None, self.persona)]

    def one(self, kind: str) -> str:
        """The name of the only condition of a kind."""
        return self.named(kind)[0].name

    @cached_property
    def families(self) -> list[str]:
        return [prompt.family for prompt in self.prompts]

    def tier(self, *tiers: str) -> Bool[np.ndarray, " prompt"]:
        """Which prompts are harmful and of these tiers."""
        return np.array([p.kind == "harmful" and p.tier in tiers for p in self.prompts])

    def behaviour(self, names: Iterable[str], trained: bool = False) -> Behaviour:
        """Mean outcome columns of one or more conditions (finetuning seeds).

        Safe replies in trained categories are left out unless asked for: emergent alignment is
        what happens in the others.
        """
        columns: Behaviour = np.mean([outcome_columns(self.judged[name]) for name in names], axis=0)
        if not trained:
            columns[self.tier("T0"), 0] = np.nan
        return columns

    def finetuned(self, trained: bool = False) -> Behaviour:
        return self.behaviour((c.name for c in self.named("finetuned")), trained)

    def before(self, trained: bool = False) -> Behaviour:
        return self.behaviour([self.one("helpful_only")], trained)

    @property
    def options(self) -> dict[str, Any]:
        """Settings of every bootstrap."""
        return {"resamples": self.study.budget.resamples, "seed": self.study.seed}
