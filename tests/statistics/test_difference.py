"""Differences of two estimates of which only the intervals are known."""

import math

import numpy as np
import pytest


def test_normal_intervals_combine_in_quadrature() -> None:
    from persona_probe.statistics import Estimate, difference

    found = difference(Estimate(0.8, 0.5, 1.1, 90, 9), Estimate(0.2, -0.2, 0.6, 60, 6))
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.1, 1.1))
    assert (found.n, found.n_clusters) == (60, 6)


def test_each_side_uses_the_limits_that_face_apart() -> None:
    from persona_probe.statistics import Estimate, difference

    skewed, still = Estimate(1.0, 0.9, 2.0, 9, 3), Estimate(0.0, 0.0, 0.0, 9, 3)
    forwards, backwards = difference(skewed, still), difference(still, skewed)
    assert (forwards.low, forwards.high) == pytest.approx((0.9, 2.0))
    assert (backwards.low, backwards.high) == pytest.approx((-2.0, -0.9))


def test_what_is_undefined_stays_so_and_says_why() -> None:
    from persona_probe.statistics import Estimate, difference

    known = Estimate(0.5, 0.4, 0.6, 9, 3)
    assert difference(known, Estimate.undefined("too few")).reason == "too few"
    bare = difference(known, Estimate(0.2, math.nan, math.nan, 9, 3))
    assert bare.value == pytest.approx(0.3)
    assert math.isnan(bare.low)


def test_intervals_cover_the_difference_of_two_independent_means() -> None:
    from persona_probe.statistics import difference, mean_interval

    rng = np.random.default_rng(0)
    names = [str(i) for i in range(40)]
    hits = 0
    for _ in range(300):
        one = mean_interval(rng.normal(1.0, 2.0, 40), names, resamples=200)
        other = mean_interval(rng.normal(0.4, 1.0, 40), names, resamples=200)
        found = difference(one, other)
        hits += found.low <= 0.6 <= found.high
    assert 0.91 <= hits / 300 <= 0.985
