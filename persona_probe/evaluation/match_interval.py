"""The interval of a signature match, which noise pulls towards zero.

The mean shift of a dimension is known from a few items only. Noise lengthens the vector of shifts
and so shortens its correlation with anything, and a resample has the noise twice: percentiles of
resampled correlations lie too low, and a bias correction by ranks (BCa) takes back half of it. Here
each resampled shift is freed of the variance that its own items show before it is correlated.
Simulated coverage is in `tests/study/test_coverage.py`.
"""

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.statistics import Estimate, resample_weights

LEVEL = 0.95
SMALLEST_SIGNAL = 0.05
"""Of the squared length, the least that is taken for signal when noise explains all of it."""


def match_interval(
    value: float,
    shifts: Float[np.ndarray, " item"],
    belongs: Bool[np.ndarray, "dimension item"],
    expected: Float[np.ndarray, " dimension"],
    resamples: int,
    seed: int,
) -> Estimate:
    """The correlation between mean shifts and a signature, with an interval over items.

    Args:
        value: the correlation on the sample itself.
        shifts: how far each item's score moved.
        belongs: which items measure which dimension.
        expected: the signature.
        resamples: bootstrap draws of items.
        seed: of the draws.
    """
    n = len(shifts)
    if not np.isfinite(value):
        return Estimate.undefined("no value on the sample itself", n, n)
    weights = resample_weights(n, resamples, seed)
    counts = weights @ belongs.T
    with np.errstate(divide="ignore", invalid="ignore"):
        means = weights @ (belongs * shifts).T / counts
        squares = weights @ (belongs * shifts**2).T / counts
        noise = (squares - means**2) / (counts - 1)
        draws = _free_of_noise(means, noise, expected)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Estimate(value, np.nan, np.nan, n, n, reason="no resample has a value")
    low, high = np.clip(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), -1, 1)
    return Estimate(value, float(min(low, value)), float(max(high, value)), n, n, LEVEL)


def _free_of_noise(
    means: Float[np.ndarray, "draw dimension"],
    noise: Float[np.ndarray, "draw dimension"],
    expected: Float[np.ndarray, " dimension"],
) -> Float[np.ndarray, " draw"]:
    """Correlation whose denominator holds the variance of the true shifts alone."""
    rows = means - means.mean(axis=1, keepdims=True)
    centred = expected - expected.mean()
    length = (rows**2).sum(axis=1)
    # Centring takes the share 1 / dimensions of the noise away.
    excess = noise.sum(axis=1) * (1 - 1 / means.shape[1])
    true_length = np.maximum(length - excess, SMALLEST_SIGNAL * length)
    return np.asarray(rows @ centred / np.sqrt(true_length * (centred @ centred)))
