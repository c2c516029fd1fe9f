"""Debiased CKA against its definition, for data that are related and data that are not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.directions.moved import orthonormal


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """The formula with whole kernels, as it is written in the literature."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        first = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((first - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    return float(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


@pytest.fixture
def alike() -> Callable[..., list]:
    def measure(x: np.ndarray, y: np.ndarray, per_family: int = 4, **options: int) -> list:
        from persona_probe.directions.before_after.cka import similarity
        from persona_probe.models.site import Site

        families = [f"f{i // per_family}" for i in range(x.shape[1])]
        sites = [Site(layer) for layer in range(len(x))]
        return similarity(torch.from_numpy(x), torch.from_numpy(y), families, sites, **options)

    return measure


def test_it_is_the_definition_at_every_site(alike: Callable[..., list]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 24, 10)) + 3
    y = x @ rng.normal(size=(10, 7)) + rng.normal(size=(3, 24, 7))
    for i, row in enumerate(alike(x, y)):
        assert row.site.layer == i
        assert row.cka.value == pytest.approx(by_definition(x[i], y[i]))
        assert (row.cka.n, row.cka.n_clusters) == (24, 6)


def test_the_interval_leaves_out_one_family_at_a_time(alike: Callable[..., list]) -> None:
    from scipy.stats import t

    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 20, 6))
    y = x + rng.normal(size=(1, 20, 6))
    family = np.arange(20) // 4
    left = np.array([by_definition(x[0, family != f], y[0, family != f]) for f in range(5)])
    error = np.sqrt(4 * left.var())
    row = alike(x, y)[0].cka
    assert row.high - row.value == pytest.approx(t.ppf(0.975, 4) * error)


def test_a_rotation_and_a_scale_change_nothing(alike: Callable[..., list]) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 40, 12)) * np.linspace(0.1, 4, 12)
    turned = 7.0 * x @ orthonormal(rng, 12, 12) + 100.0
    for row in alike(x, turned):
        assert row.cka.value == pytest.approx(1)
        assert row.chance.high < 0.5


def test_unrelated_data_have_zero_in_expectation_where_the_biased_form_has_not(
    alike: Callable[..., list],
) -> None:
    rng = np.random.default_rng(3)
    values, biased = [], []
    for _ in range(60):
        x, y = rng.normal(size=(2, 1, 24, 40))
        values.append(alike(x, y, draws=1)[0].cka.value)
        k, m = (z[0] - z[0].mean(axis=0) for z in (x, y))
        norms = np.linalg.norm(k @ k.T), np.linalg.norm(m @ m.T)
        biased.append(np.linalg.norm(k.T @ m) ** 2 / np.prod(norms))
    assert np.mean(biased) > 0.5
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.std(values) < 0.2


def test_what_does_not_vary_is_undefined_and_says_so(alike: Callable[..., list]) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 12, 5))
    flat = alike(x, np.ones((1, 12, 5)))[0]
    assert not flat.cka.defined
    assert flat.cka.reason == "the examples do not vary beyond chance"
    assert not flat.chance.defined
    few = alike(x[:, :3], x[:, :3], per_family=1)[0]
    assert few.cka.reason == "debiased CKA needs 4 examples, got 3"
