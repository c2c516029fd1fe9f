"""Random directions at the strength that costs as much as the true one: a stricter control.

A direction found in activations moves the output more than a random one of equal length does, so
"equal norm" flatters it. Here each random direction gets the strength at which its KL to the
unsteered model on benign replies is that of the true direction.
"""

import math
from collections.abc import Sequence

import numpy as np

from persona_probe.evaluation.guards import benign_divergences
from persona_probe.models.chat import Conversation
from persona_probe.study.arms import BySite, Choice, Condition, helpful_only, steered
from persona_probe.study.lab import Lab

FACTORS = tuple(2.0**k for k in range(-2, 5))  # of the true direction's strength
ROUNDS = 2


def kl_matched_strengths(
    lab: Lab,
    persona: str,
    true: Condition,
    choice: Choice,
    draws: Sequence[BySite],
    replies: Sequence[Conversation],
) -> tuple[float, list[tuple[float, float]]]:
    """The strength of each draw whose KL per benign token is that of the true direction.

    All draws and strengths of a round share a batch. Where even the largest strength costs less,
    it is taken, and its KL says so.

    Args:
        lab: the study.
        persona: whose direction it is.
        true: the steered condition to be matched.
        choice: its site and strength.
        draws: random directions.
        replies: benign requests that end with the unsteered model's own replies.

    Returns:
        The KL to be matched, and strength and KL per draw; NaN without replies.
    """
    if not replies or not draws:
        return math.nan, [(choice.strength, math.nan) for _ in draws]
    target = _costs(lab, [true], replies)[0]
    tried: list[dict[float, float]] = [{} for _ in draws]
    grids = [[choice.strength * factor for factor in FACTORS] for _ in draws]
    for _ in range(ROUNDS):
        arms = [(number, strength) for number, grid in enumerate(grids) for strength in grid]
        conditions = [
            steered(lab.study, persona, draws[n][choice.site], s, "kl_matched", n, f"{s!r}")
            for n, s in arms
        ]
        for (number, strength), kl in zip(arms, _costs(lab, conditions, replies), strict=True):
            tried[number][strength] = kl
        grids = [_finer(costs, target) for costs in tried]
    return target, [_nearest(costs, target) for costs in tried]


def _costs(
    lab: Lab, conditions: Sequence[Condition], replies: Sequence[Conversation]
) -> list[float]:
    before = helpful_only(lab.study)
    found = benign_divergences(lab.model, replies, [c.arm for c in conditions], before.arm)
    return [found[condition.name].per_token for condition in conditions]


def _finer(tried: dict[float, float], target: float) -> list[float]:
    """Strengths between the first crossing and the one before it, evenly in the logarithm."""
    ordered = sorted(tried)
    high = next((s for s in ordered if tried[s] >= target), ordered[-1])
    low = max((s for s in ordered if s < high), default=high / 4)
    return [float(s) for s in np.geomspace(low, high, len(FACTORS) + 2)[1:-1]]


def _nearest(tried: dict[float, float], target: float) -> tuple[float, float]:
    """The smallest strength that is nearest to the target in KL."""
    best = min(sorted(tried), key=lambda strength: abs(tried[strength] - target))
    return best, tried[best]
