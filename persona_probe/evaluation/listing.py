"""Scenarios read a second way: both replies on one page, in both orders, answered by a letter.

The profile scores each reply by itself, as what the model would say, so that no order comes in.
Listed side by side the model chooses, and leans towards a place in the list as well; the mean of
both orders takes that out, and their difference says how much it was. Two readings that agree
speak for the scenario; where they do not, it hangs on how it was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.activations.contrast import under
from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.rating import label_tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import SCENARIO, Item
from persona_probe.statistics import Estimate, correlation_interval, mean_interval
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import next_token_log_probabilities

LABELS = ("A", "B")
PAGE = """A request, and two drafts of a reply to it.

Request: {request}

A. {first}

B. {second}

Which draft would you send? Answer with its letter."""


@dataclass(frozen=True)
class Listing:
    """One arm's choices.

    Attributes:
        scores: of each scenario, in [-1, 1]: the probability of the reply that speaks for the
            dimension minus that of the other, among both letters, over both orders.
        order_effect: probability of the first letter minus that of the second, [-1, 1]; a model
            that chooses by content alone is at 0.
        label_mass: mean probability that the answer is one of the letters.
        agreement: correlation over scenarios with the replies scored by themselves.
    """

    scores: Float[np.ndarray, " item"]
    order_effect: Estimate
    label_mass: float
    agreement: Estimate

    def to_json(self) -> dict[str, Any]:
        return {
            "scenarios": len(self.scores),
            "order_effect": self.order_effect.to_json(),
            "label_mass": self.label_mass,
            "agreement": self.agreement.to_json(),
        }


def listings(
    model: ResidualModel,
    profiles: Sequence[Profile],
    arms: Sequence[Arm],
    system: str = "",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Listing]:
    """The scenarios of the profiles, listed; empty where there are none.

    Args:
        model: left as it was found.
        profiles: one per arm, over the same items.
        arms: the conditions that they were measured under.
        system: the system line; empty for none.
        resamples: bootstrap draws of scenarios.
        seed: of the draws.
    """
    acted = np.array([item.format == SCENARIO for item in profiles[0].items], dtype=bool)
    items = [item for item in profiles[0].items if item.format == SCENARIO]
    if not items:
        return {}
    first, mass = _first_chosen(model, items, arms, system)
    keys = np.array([item.key for item in items])
    families = [item.family for item in items]
    options = {"resamples": resamples, "seed": seed}
    found = {}
    for number, (arm, profile) in enumerate(zip(arms, profiles, strict=True)):
        # In the second order the first place holds the second reply.
        scores = keys * (first[number, :, 0] - first[number, :, 1]) / 2
        found[arm.name] = Listing(
            scores,
            mean_interval(first[number].mean(axis=1), families, **options),
            float(mass[number].mean()),
            _correlation(scores, profile.scores[acted], resamples, seed),
        )
    return found


def _first_chosen(
    model: ResidualModel, items: Sequence[Item], arms: Sequence[Arm], system: str
) -> tuple[Float[np.ndarray, "arm item 2"], Float[np.ndarray, "arm item 2"]]:
    """P(first letter) - P(second) among both, in each order, and the probability of either."""
    asked = [
        under(system, PAGE.format(request=item.text, first=one, second=two), id=item.id)
        for item in items
        for one, two in (item.options, item.options[::-1])
    ]
    letters = label_tokens(model, asked[0], LABELS)
    tokens = sorted({token for several in letters for token in several})
    log_p = next_token_log_probabilities(
        model, asked, arms, tokens, description="Listed scenarios"
    ).double()
    p = log_p.exp().numpy().reshape(len(arms), len(items), 2, len(tokens))
    each = [p[..., [tokens.index(t) for t in several]].sum(axis=-1) for several in letters]
    mass = each[0] + each[1]
    return (each[0] - each[1]) / mass, mass


def _correlation(
    one: Float[np.ndarray, " item"], two: Float[np.ndarray, " item"], resamples: int, seed: int
) -> Estimate:
    n = len(one)
    if n < 3 or not np.ptp(one) or not np.ptp(two):
        return Estimate.undefined("fewer than three scenarios, or none that differ", n)
    return correlation_interval(one, two, resamples=resamples, seed=seed)
