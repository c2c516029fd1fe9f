"""The difference of two numbers of which only the intervals are known."""

import math

from persona_probe.statistics.estimate import Estimate


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` - `other` with the interval of two independent estimates.

    Each side's distance from its own value to its own limit enters squared, so that skewed
    intervals give a skewed one (MOVER: Zou & Donner 2008, Statistics in Medicine 27:1693). Where
    both were measured on the same prompts they are positively correlated as a rule, and the
    interval is too wide.

    Returns:
        The difference; without an interval where one of the two has none, undefined with the
        reason where one of them is undefined.
    """
    for side in (one, other):
        if not side.defined:
            return Estimate.undefined(side.reason or "one of the two is undefined")
    value = one.value - other.value
    n, clusters = min(one.n, other.n), min(one.n_clusters, other.n_clusters)
    ends = (one.low, one.high, other.low, other.high)
    if any(math.isnan(end) for end in ends) or one.level != other.level:
        return Estimate(value, math.nan, math.nan, n, clusters, one.level, "one has none")
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, n, clusters, one.level)
