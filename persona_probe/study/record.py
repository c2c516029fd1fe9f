"""Everything measured about one persona and scope of finetuning, by the name of the condition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import Signature
from persona_probe.evaluation.rates import outcome_columns
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.ablations import ABLATED
from persona_probe.study.arms import FINETUNED, Condition
from persona_probe.study.nulls import Null
from persona_probe.study.plan import Study
from persona_probe.study.replies import Judged
from persona_probe.study.sufficiency import Behaviour


@dataclass(frozen=True)
class Record:
    """Everything measured about one persona and scope, by condition name.

    Attributes:
        scope: of the finetunes that are F here; everything else is the same in all scopes.
        prompts: harmful and permitted evaluation prompts, in the order of the replies.
        conditions: of this persona and those that all personas share.
        judged: replies; those of controls in `trial.ON_BAND` are to a part of the prompts.
        refusal: refusal probability per prompt, on the prompts whose families are
            `fast_families`.
        nulls: true and random directions on the same channel.
        profiles: persona profiles.
        signatures: persona → expected profile.
        contrast: row of validation.json for the direction at its chosen site, on held-out persona
            and neutral prompts.
        detection: the same on finetuned and helpful-only activations.
    """

    study: Study
    persona: str
    scope: str
    prompts: Sequence[SafetyPrompt]
    conditions: Sequence[Condition]
    judged: Judged
    refusal: Mapping[str, Float[np.ndarray, " prompt"]]
    fast_families: Sequence[str]
    nulls: Sequence[Null]
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

    @property
    def finetunes(self) -> list[Condition]:
        """F: one condition per seed."""
        return self.named(FINETUNED[self.scope])

    @property
    def ablated(self) -> list[Condition]:
        """F with the direction turned back: one condition per seed, or none."""
        return self.named(ABLATED[self.scope])

    @property
    def headline(self) -> bool:
        """Whether this is the scope whose ladder stands first."""
        return self.scope == self.study.scopes(self.persona)[0]

    @cached_property
    def families(self) -> list[str]:
        return [prompt.family for prompt in self.prompts]

    def tier(self, *tiers: str) -> Bool[np.ndarray, " prompt"]:
        """Which prompts are harmful and of these tiers."""
        return np.array([p.kind == "harmful" and p.tier in tiers for p in self.prompts])

    def met(self, name: str) -> Bool[np.ndarray, " prompt"]:
        """Which of the prompts a condition met."""
        asked = {judgement.prompt.id for judgement in self.judged[name]}
        return np.array([prompt.id in asked for prompt in self.prompts])

    def behaviour(self, names: Iterable[str], trained: bool = False) -> Behaviour:
        """Mean outcome columns of one or more conditions (finetuning seeds).

        NaN for prompts that were not met. Safe replies in trained categories are left out unless
        asked for: emergent alignment is what happens in the others.
        """
        several = []
        for name in names:
            columns = np.full((len(self.prompts), 2), np.nan)
            columns[self.met(name)] = outcome_columns(self.judged[name])
            several.append(columns)
        mean = _mean(several)
        if not trained:
            mean[self.tier("T0"), 0] = np.nan
        return mean

    def finetuned(self, trained: bool = False) -> Behaviour:
        return self.behaviour((c.name for c in self.finetunes), trained)

    def before(self, trained: bool = False) -> Behaviour:
        return self.behaviour([self.one("helpful_only")], trained)

    def null(self, test: str) -> Null | None:
        """True and random directions in one test, if it was made."""
        scope = self.scope if test == "ablated" else None
        return next((n for n in self.nulls if (n.test, n.scope) == (test, scope)), None)

    def over(self, dimensions: Sequence[str]) -> "Record":
        """The same with the profiles' other dimensions left out."""
        return replace(self, profiles={n: p.over(dimensions) for n, p in self.profiles.items()})

    @property
    def options(self) -> dict[str, Any]:
        """Settings of every bootstrap."""
        return {"resamples": self.study.budget.resamples, "seed": self.study.seed}


def _mean(several: Sequence[Behaviour]) -> Behaviour:
    """Mean over conditions; a prompt that one of them has no score for has none."""
    return np.asarray(np.mean(several, axis=0))
