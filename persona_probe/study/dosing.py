"""How the effect grows with strength: dose-response over the direction, its reverse, and chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.statistics import mean_interval
from persona_probe.study.arms import Choice, Condition, random_conditions, steered
from persona_probe.study.channels import margin_channel, preference_channel, with_pairs
from persona_probe.study.trial import Trial

DOSE_KINDS = ("random", "covariance")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Response:
    """What every prompt does at every strength of a direction, negative ones included.

    Attributes:
        persona: whose direction.
        measure: "margin", m = log p(safe) - log p(harmful) in nats per token of fixed replies;
            "log_odds" of beginning as a refusal does, where the suite has no fixed replies.
        strengths: in order; 0 is the unsteered model.
        ids: of the prompts. families: of the prompts.
        values: of the measure.
    """

    persona: str
    measure: str
    strengths: tuple[float, ...]
    ids: tuple[str, ...]
    families: tuple[str, ...]
    values: Float[np.ndarray, "prompt strength"]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "values": [[round(float(v), 6) for v in row] for row in self.values]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Response":
        tuples = {key: tuple(value[key]) for key in ("strengths", "ids", "families")}
        return cls(**{**value, **tuples, "values": np.array(value["values"], dtype=np.float64)})


def dose_rows(trial: Trial, persona: str) -> Rows:
    """Refusal probability against strength: the direction, its reverse, and random ones.

    The direction and its reverse with intervals over families of prompts.
    """
    lab, choice = trial.lab, trial.choices[persona]
    study = lab.study
    prompts = [*trial.band, *trial.permitted[: len(trial.band)]]
    harmful = np.array([prompt.kind == "harmful" for prompt in prompts])
    draws = trial.draws(persona, study.budget.random_dose, DOSE_KINDS)
    conditions: list[Condition] = []
    for strength in (0.0, *study.strengths):
        random = random_conditions(study, persona, Choice(choice.site, strength), draws)
        conditions += [c.at(strength) for c in (*_both_ways(trial, persona, strength), *random)]
    found = preference_channel(lab, conditions, prompts)
    families = np.array([prompt.family for prompt in prompts])

    def mean(condition: Condition, part: Bool[np.ndarray, " prompt"]) -> Any:
        """An estimate; of a random draw, of which there are many, the bare mean."""
        values = found[condition.name][part]
        if condition.kind in DOSE_KINDS:
            return float(values.mean())
        options = {"resamples": study.budget.resamples, "seed": study.seed}
        return mean_interval(values, families[part].tolist(), **options).to_json()

    return [
        {
            "persona": persona,
            "arm_kind": c.kind,
            "strength": c.strength,
            "seed": c.seed,
            "refusal_probability": mean(c, harmful),
            "over_refusal_probability": mean(c, ~harmful),
            "n": int(harmful.sum()),
        }
        for c in conditions
    ]


def response_of(trial: Trial, persona: str) -> Response:
    """The direction at every strength and its negative, prompt by prompt."""
    prompts = with_pairs(trial.band) or trial.band
    positive = trial.lab.study.strengths
    by_strength = {0.0: _both_ways(trial, persona, 0.0)[0]}
    for strength in positive:
        forwards, backwards = _both_ways(trial, persona, strength)
        by_strength |= {strength: forwards.at(strength), -strength: backwards.at(strength)}
    order = tuple(sorted(by_strength))
    conditions = [by_strength[strength] for strength in order]
    found = margin_channel(trial.lab, conditions, prompts)
    measure = "margin" if found else "log_odds"
    if not found:
        mass = preference_channel(trial.lab, conditions, prompts)
        found = {name: _log_odds(values) for name, values in mass.items()}
    return Response(
        persona,
        measure,
        order,
        tuple(prompt.id for prompt in prompts),
        tuple(prompt.family for prompt in prompts),
        np.stack([found[condition.name] for condition in conditions], axis=1),
    )


def _both_ways(trial: Trial, persona: str, strength: float) -> tuple[Condition, Condition]:
    own = trial.directions[persona][trial.choices[persona].site]
    study = trial.lab.study
    return (
        steered(study, persona, own, strength, "direction"),
        steered(study, persona, -own, strength, "sign_flip"),
    )


def _log_odds(probability: Float[np.ndarray, " prompt"]) -> Float[np.ndarray, " prompt"]:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))
