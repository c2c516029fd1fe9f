"""Permutation p values, their correction for many tests, equivalence, and shares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.statistics.estimate import Estimate, Numbers
from persona_probe.statistics.means import mean_interval


def permutation_p(observed: float, null: Numbers) -> float:
    """(1 + #{null >= observed}) / (B + 1), one-sided; its floor is 1 / (B + 1), never 0.

    Phipson & Smyth 2010. NaN when the observed value or a null draw is undefined.
    """
    draws = np.asarray(null, dtype=np.float64)
    if np.isnan(observed) or np.isnan(draws).any():
        return float("nan")
    return float((1 + np.count_nonzero(draws >= observed)) / (len(draws) + 1))


def holm(p_values: Sequence[float], n_tests: int | None = None) -> Float[np.ndarray, " test"]:
    """Holm's (1979) step-down adjusted p values, in the order given.

    Args:
        p_values: NaN marks a test that was planned and not made; it stays NaN.
        n_tests: size of the pre-registered family; the number of `p_values`, NaN included, if not
            given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    total = len(p) if n_tests is None else n_tests
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    steps = np.minimum(1.0, (total - np.arange(len(order))) * p[order])
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests at 5 %: is the 90 % interval of the difference inside the margin?"""

    difference: Estimate
    margin: float

    @property
    def equivalent(self) -> bool:
        """True only when shown; an undefined interval shows nothing."""
        return self.difference.within(self.margin)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "difference": self.difference.to_json(),
            "margin": self.margin,
            "equivalent": self.equivalent,
        }


def equivalence(
    differences: Numbers,
    clusters: Sequence[str],
    margin: float,
    **options: Any,
) -> Equivalence:
    """TOST by bootstrap: is the mean of paired `differences` shown to be within the margin?"""
    return Equivalence(mean_interval(differences, clusters, **{"level": 0.9, **options}), margin)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Share of independent successes with Wilson's score interval (1927)."""
    if n == 0:
        return Estimate.undefined("the share of nothing")
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n, n, level)


def share_interval(values: Numbers, clusters: Sequence[str], **options: Any) -> Estimate:
    """`mean_interval` of zeros and ones; Wilson's over clusters where all of them are equal.

    No resample of zeros holds a one, yet 0 of 20 does not show that the share is exactly 0. The
    clusters are counted there, not the observations, which may be alike within one.
    """
    found = mean_interval(values, clusters, **options)
    if found.value not in (0.0, 1.0) or found.low != found.high:
        return found
    score = wilson_interval(round(found.value * found.n_clusters), found.n_clusters, found.level)
    return replace(score, n=found.n)
