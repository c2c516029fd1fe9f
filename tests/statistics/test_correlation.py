"""Pearson's r agrees with scipy, and its interval covers what was planted."""

import numpy as np
import pytest


def test_the_value_is_that_of_scipy() -> None:
    from scipy.stats import pearsonr

    from persona_probe.statistics import correlation_interval

    rng = np.random.default_rng(0)
    one = rng.normal(size=60)
    two = one + rng.normal(size=60)
    found = correlation_interval(one, two, resamples=2000)
    assert found.value == pytest.approx(pearsonr(one, two).statistic)
    assert found.low < 2**-0.5 < found.high
    assert (found.n, found.n_clusters) == (60, 60)
    assert correlation_interval(one, -two).value == pytest.approx(-found.value)
