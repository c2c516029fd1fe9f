"""Permutation p values, Holm, equivalence, Wilson: against hand calculations and theory."""

import numpy as np
import pytest


def test_a_permutation_p_counts_the_observed_value_itself() -> None:
    from persona_probe.statistics import permutation_p

    assert permutation_p(5.0, [1, 2, 3]) == 1 / 4
    assert permutation_p(2.0, [1, 2, 3]) == 3 / 4
    assert permutation_p(1.0, np.zeros(399)) == 1 / 400
    assert np.isnan(permutation_p(np.nan, [1.0]))
    assert np.isnan(permutation_p(1.0, [np.nan]))


def test_holm_by_hand() -> None:
    from persona_probe.statistics import holm

    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, then never decreasing.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_a_planned_test_that_was_not_made_still_counts() -> None:
    from persona_probe.statistics import holm

    assert holm([0.01, np.nan, np.nan])[0] == pytest.approx(0.03)
    assert np.isnan(holm([0.01, np.nan])[1])
    assert holm([0.003], n_tests=16)[0] == pytest.approx(0.048)


def test_equivalence_is_shown_by_a_narrow_interval_and_by_nothing_else() -> None:
    from persona_probe.statistics import equivalence

    rng = np.random.default_rng(0)
    families = [str(i // 4) for i in range(160)]
    small = equivalence(0.01 + 0.1 * rng.normal(size=160), families, 0.1, resamples=1_000)
    assert small.equivalent
    assert small.difference.level == 0.9
    noisy = equivalence(0.01 + 2.0 * rng.normal(size=160), families, 0.1, resamples=1_000)
    assert not noisy.equivalent
    large = equivalence(0.3 + 0.1 * rng.normal(size=160), families, 0.1, resamples=1_000)
    assert not large.equivalent
    assert not equivalence([0.0, 0.0], ["a", "a"], 0.1).equivalent
    assert small.to_json()["equivalent"] is True


def test_wilson_by_its_formula_and_at_the_edges() -> None:
    from persona_probe.statistics import wilson_interval

    estimate = wilson_interval(7, 20)
    z, p, n = 1.959964, 0.35, 20
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (estimate.low, estimate.high) == pytest.approx((middle - half, middle + half))
    assert wilson_interval(20, 20).low < 1.0
    assert wilson_interval(20, 20).high == pytest.approx(1.0)
    assert not wilson_interval(0, 0).defined


def test_a_share_of_nothing_but_zeros_or_ones_has_an_interval() -> None:
    from persona_probe.statistics import mean_interval, share_interval, wilson_interval

    families = [f"family-{i // 2}" for i in range(20)]
    none, every = share_interval([0] * 20, families), share_interval([1] * 20, families)
    assert (none.low, none.high) == pytest.approx((0.0, wilson_interval(0, 10).high))
    assert (every.low, every.high) == pytest.approx((wilson_interval(10, 10).low, 1.0))
    assert (none.n, none.n_clusters) == (20, 10)
    mixed = [i % 3 == 0 for i in range(20)]
    assert share_interval(mixed, families) == mean_interval(mixed, families)
    assert np.isnan(share_interval([0, 0], ["one", "one"]).high)
