"""Permutation p values, their correction for many tests, and equivalence."""

from collections.abc import Sequence
from dataclasses import dataclass
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
