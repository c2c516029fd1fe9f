"""AUROC, d' and balanced accuracy against scikit-learn, brute force and theory."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def scored() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = rng.random(120) < 0.4
    scores = rng.normal(size=(4, 120)) + 0.8 * y
    scores[2] = np.round(scores[2])  # ties
    return {
        "scores": scores,
        "y": y,
        "family": np.arange(120) % 11,
        "families": [f"f{i % 11:02}" for i in range(120)],
    }


def test_auroc_equals_that_of_scikit_learn_with_ties_too(scored: dict[str, Any]) -> None:
    from sklearn.metrics import roc_auc_score

    from persona_probe.directions.checks.separation import auroc, auroc_statistic

    y = scored["y"]
    expected = [roc_auc_score(y, row) for row in scored["scores"]]
    assert auroc(scored["scores"], y) == pytest.approx(expected, abs=1e-12)
    statistic = auroc_statistic(scored["scores"], y, scored["family"], 11)
    assert statistic(np.ones((1, 11)))[0] == pytest.approx(expected, abs=1e-12)


def test_statistics_of_weights_equal_those_of_repeated_families(scored: dict[str, Any]) -> None:
    from sklearn.metrics import balanced_accuracy_score

    from persona_probe.directions.checks.separation import (
        auroc,
        auroc_statistic,
        balanced_accuracy_statistic,
        d_prime_statistic,
    )
    from persona_probe.statistics import resample_weights

    scores, y, family = scored["scores"], scored["y"], scored["family"]
    weights = resample_weights(11, 5, seed=3)
    areas = auroc_statistic(scores, y, family, 11)(weights)
    distances = d_prime_statistic(scores, y, family, 11)(weights)
    accuracies = balanced_accuracy_statistic(scores > 0.3, y, family, 11)(weights)
    for draw, row in enumerate(weights.astype(int)):
        rows = np.concatenate([np.flatnonzero(family == f) for f in np.repeat(np.arange(11), row)])
        x, labels = scores[:, rows], y[rows]
        assert areas[draw] == pytest.approx(auroc(x, labels))
        pooled = np.sqrt((x[:, labels].var(1, ddof=1) + x[:, ~labels].var(1, ddof=1)) / 2)
        expected = (x[:, labels].mean(1) - x[:, ~labels].mean(1)) / pooled
        assert distances[draw] == pytest.approx(expected)
        accuracy = [balanced_accuracy_score(labels, row > 0.3) for row in x]
        assert accuracies[draw] == pytest.approx(accuracy)


def test_d_prime_and_auroc_agree_for_normal_scores() -> None:
    from scipy.stats import norm

    from persona_probe.directions.checks.separation import auroc, d_prime_statistic

    rng = np.random.default_rng(0)
    y = np.arange(40_000) < 20_000
    scores = (rng.normal(size=40_000) + 1.5 * y)[None]
    d_prime = d_prime_statistic(scores, y, np.zeros(40_000, dtype=int), 1)(np.ones((1, 1)))[0, 0]
    assert d_prime == pytest.approx(1.5, abs=0.03)
    assert auroc(scores, y)[0] == pytest.approx(norm.cdf(d_prime / np.sqrt(2)), abs=0.005)


def test_permutations_keep_the_labels_of_every_stratum() -> None:
    from persona_probe.directions.checks.separation import auroc, permuted_aurocs

    rng = np.random.default_rng(0)
    stratum = np.repeat(np.arange(30), 2)
    y = np.tile([True, False], 30)
    # Scores that only name the stratum: no exchange within pairs can move the AUROC from 1/2.
    between = (stratum * 1.0)[None]
    assert permuted_aurocs(between, y, stratum, 50, rng) == pytest.approx(0.5)
    # A perfect score: of the permutations within 30 pairs none in 200 is perfect again.
    perfect = (y * 1.0)[None]
    assert auroc(perfect, y)[0] == 1.0
    assert permuted_aurocs(perfect, y, stratum, 200, rng).max() < 1.0


def test_the_gain_over_the_best_baseline_is_paired(scored: dict[str, Any]) -> None:
    from persona_probe.directions.checks.separation import separation

    y, scores = scored["y"], scored["scores"]
    baselines = {"useless": np.arange(120.0) % 5, "copy": scores[0]}
    thresholds = np.array([0.4, 0.4, 0.4, np.nan])
    result = separation(scores, thresholds, baselines, y, scored["families"])
    assert result.gain[0].value == 0.0
    assert (result.gain[0].low, result.gain[0].high) == (0.0, 0.0)
    assert result.baselines["copy"].value == result.auroc[0].value
    assert result.auroc[0].n == 120
    assert result.auroc[0].n_clusters == 11
    assert not result.balanced_accuracy[3].defined
    assert result.balanced_accuracy[3].reason == "the direction has no midpoint"
    alone = separation(scores, thresholds, {}, y, scored["families"])
    assert alone.gain[0].reason == "no baseline to compare with"
