"""Whitened differences and shrinkage LDA: scikit-learn's, whatever the covariance."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError


@pytest.mark.parametrize(("n", "width"), [(200, 20), (40, 60)])
@pytest.mark.parametrize("loud", [1.0, 1e4])
def test_discriminants_are_those_of_scikit_learn(n: int, width: int, loud: float) -> None:
    """With fewer examples than axes, and with one axis whose variance is 1e8 that of the others."""
    from sklearn.covariance import LedoitWolf, ledoit_wolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width)) @ np.diag(rng.uniform(0.5, 2, width)) + 3.0
    x[:, 3] *= loud
    y = np.arange(n) < n // 3
    x[y, 0] += 2.0
    lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=LedoitWolf())
    expected = lda.fit(x, y).coef_[0]
    found = FINDERS["shrinkage_lda"]().fit(torch.from_numpy(x), torch.from_numpy(y))
    # scikit-learn's least squares loses digits where variances differ by 1e8.
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-6 * np.abs(expected).max())
    difference = x[y].mean(axis=0) - x[~y].mean(axis=0)
    within = np.concatenate([x[y] - x[y].mean(axis=0), x[~y] - x[~y].mean(axis=0)])
    covariance, amount = ledoit_wolf(within, assume_centered=True)
    assert 0 < amount < 1
    whitened = FINDERS["whitened_difference"]().fit(torch.from_numpy(x), torch.from_numpy(y))
    assert covariance @ whitened.numpy() == pytest.approx(difference, abs=1e-6 * loud)


def test_a_whitened_difference_separates_better_along_a_varying_axis() -> None:
    """Classes 1 apart on a quiet axis and on one of deviation 10: the second is worth little."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(4000, 2)) * [1.0, 10.0])
    y = torch.arange(4000) < 2000
    x[y] += 1.0
    for name in ("whitened_difference", "shrinkage_lda"):
        raw = FINDERS[name]().fit(x, y)
        assert raw[1] / raw[0] == pytest.approx(0.01, abs=0.006)
    plain = FINDERS["mean_difference"]().fit(x, y)
    assert plain[1] / plain[0] > 0.5


@pytest.mark.parametrize("name", ["whitened_difference", "shrinkage_lda"])
def test_classes_without_variation_are_refused_by_discriminants(name: str) -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    y = torch.tensor([True, True, False, False])
    with pytest.raises(DegenerateClassesError, match=r"vary too little .* use mean_difference"):
        FINDERS[name]().fit(x, y)


@pytest.mark.parametrize("name", ["whitened_difference", "shrinkage_lda"])
def test_collinear_activations_have_a_discriminant(name: str, planted: Any) -> None:
    """Copies of an axis have no invertible covariance; the shrunken one treats them alike."""
    x = planted().activations.values[:, 0].double()
    y = torch.arange(len(x)) < len(x) // 2
    raw = FINDERS[name]().fit(torch.cat([x, x[:, :5]], dim=1), y)
    assert torch.isfinite(raw).all()
    assert raw[32:] == pytest.approx(raw[:5], rel=1e-6)


def test_the_whitened_direction_is_the_one_that_least_squares_concept_erasure_removes() -> None:
    """Identities of LEACE (Belrose et al. 2023, arXiv:2306.03819) for two classes.

    Its eraser is x - D (w'x) / (w'D), D the difference of means and w = S^-1 D. Afterwards the
    class means are equal, so no linear probe learns anything, and of all projections along D that
    achieve this it changes the activations least.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    n, width = 4_000, 6
    y = np.arange(n) % 2 == 0
    x = rng.normal(size=(n, width)) @ (rng.normal(size=(width, width)) + 2 * np.eye(width))
    x += y[:, None] * rng.normal(size=width)
    x -= x.mean(axis=0)
    data, labels = torch.from_numpy(x), torch.from_numpy(y)
    difference = FINDERS["mean_difference"]().fit(data, labels).numpy()
    whitened = FINDERS["whitened_difference"]().fit(data, labels).numpy()

    def erased(w: np.ndarray) -> np.ndarray:
        return np.asarray(x - np.outer(x @ w, difference) / (w @ difference))

    gone = erased(whitened)
    assert np.abs(gone[y].mean(axis=0) - gone[~y].mean(axis=0)).max() < 1e-9
    assert LogisticRegression().fit(x, y).score(x, y) > 0.6
    assert LogisticRegression().fit(gone, y).score(gone, y) == pytest.approx(0.5, abs=0.02)
    # LEACE has the total covariance, S + c D D', which gives the same w (Sherman-Morrison).
    total = np.linalg.solve(np.cov(x.T), difference)
    cosine = total @ whitened / np.linalg.norm(total) / np.linalg.norm(whitened)
    assert cosine == pytest.approx(1.0, abs=1e-4)
    least = np.square(gone - x).sum()
    others = [whitened + size * rng.normal(size=width) for size in (0.3, 1.0) for _ in range(20)]
    wide = np.linalg.norm(whitened)
    for other in [difference, *(whitened + wide * o / np.linalg.norm(o) for o in others)]:
        assert np.square(erased(other) - x).sum() > least
