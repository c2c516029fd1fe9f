"""Pearson correlation of paired numbers, with an interval from resampling the pairs."""

from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.statistics.bootstrap import Weights, cluster_bootstrap
from persona_probe.statistics.estimate import Estimate

STILL = 1e-12  # spread of a resample in which one side does not vary, up to rounding


def correlation_interval(
    one: Float[np.ndarray, " pair"], two: Float[np.ndarray, " pair"], **options: Any
) -> Estimate:
    """Pearson's r with percentiles of its resamples; every pair is a cluster of its own.

    Args:
        one: a number per pair; not all equal.
        two: likewise.
        options: of `cluster_bootstrap`, except its method.
    """
    n = len(one)

    def pearson(weights: Weights) -> Float[np.ndarray, " draw"]:
        share = weights / weights.sum(axis=1, keepdims=True)
        means = [share @ values for values in (one, two)]
        spread = [share @ values**2 - m**2 for values, m in zip((one, two), means, strict=True)]
        both = share @ (one * two) - means[0] * means[1]
        size = np.sqrt(np.maximum(spread[0], 0) * np.maximum(spread[1], 0))
        return np.where(size > STILL, both / np.where(size > STILL, size, 1.0), np.nan)

    return cluster_bootstrap(pearson, n, n, method="percentile", **options)[0]
