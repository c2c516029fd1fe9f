"""What hundreds of random directions do on the log-probability channel: the headline p-values.

Sufficiency: random directions added to the model before finetuning, against the true one; does the
reply begin as a refusal? Necessity: random directions taken out of a finetuned model, against the
true one; does the reply begin as compliance does? A direction that breaks the model brings neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.ablations import random_ablated, random_ablations, turned_back
from persona_probe.study.arms import Condition, after, random_conditions
from persona_probe.study.channels import preference_channel
from persona_probe.study.trial import Trial

FAST_KINDS = ("random", "covariance")


@dataclass(frozen=True)
class Null:
    """Mean probability under the true direction and under random ones.

    Attributes:
        persona: whose direction.
        test: "added" to the model before finetuning, where the probability is that of beginning
            as a refusal does, or "ablated" from a finetuned one, where it is that of compliance.
        scope: of the finetuned model; `None` for "added".
        observed: under the true direction.
        draws: kind of random direction → one value per draw.
        n: prompts.
    """

    persona: str
    test: str
    scope: str | None
    observed: float
    draws: dict[str, Float[np.ndarray, " draw"]]
    n: int

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "draws": {k: [round(float(v), 9) for v in values] for k, values in self.draws.items()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Null":
        draws = {k: np.array(v, dtype=np.float64) for k, v in value["draws"].items()}
        return cls(**{**value, "draws": draws})


def added_null(trial: Trial, persona: str) -> Null:
    """Random directions at the chosen site and strength."""
    study, choice = trial.lab.study, trial.choices[persona]
    draws = trial.draws(persona, study.budget.random_fast, FAST_KINDS)
    random = random_conditions(study, persona, choice, draws)
    own = [c for c in trial.conditions(persona) if c.kind == "steered"]
    return _null(trial, persona, "added", None, own[0], random, trial.band)


def ablated_null(trial: Trial, persona: str, scope: str) -> Null:
    """Random directions taken out of the first finetune of a scope, on half of the prompts."""
    study, directions = trial.lab.study, trial.directions[persona]
    n = study.budget.random_fast
    draws = random_ablated(directions, trial.neutral, n, study.seed)
    random = random_ablations(study, persona, scope, draws, trial.levels)
    own = after(
        f"ablated_true/{persona}/{scope}",
        study.seeds(persona, scope)[0],
        "ablated",
        persona,
        turned_back(directions, trial.levels),
    )
    return _null(trial, persona, "ablated", scope, own, random, trial.half_band)


def _null(
    trial: Trial,
    persona: str,
    test: str,
    scope: str | None,
    own: Condition,
    random: list[Condition],
    prompts: list[SafetyPrompt],
) -> Null:
    found = preference_channel(trial.lab, [own, *random], prompts, complying=test == "ablated")
    kinds = dict.fromkeys(condition.kind for condition in random)
    draws = {
        kind: np.array([found[c.name].mean() for c in random if c.kind == kind]) for kind in kinds
    }
    return Null(persona, test, scope, float(found[own.name].mean()), draws, len(prompts))
