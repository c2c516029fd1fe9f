"""Intervals of a share of independent trials."""

from persona_probe.statistics.estimate import Estimate


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Share of independent successes with Wilson's score interval (1927)."""
    if n == 0:
        return Estimate.undefined("the share of nothing")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n, n, level)
