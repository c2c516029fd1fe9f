"""What is measured on paired shifts: noise-free cosines, spectrum, subspaces, older span."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from tests.directions.moved import activations, direction, orthonormal, shift_of, unit


@pytest.fixture
def cosine() -> Callable[[Any, Any], list]:
    """Raw and debiased cosine of two mean shifts."""

    def measure(one: Any, other: Any) -> list:
        from persona_probe.directions.families.products import cosine_between, gram, jackknifed

        a, b = one.family_sums, other.family_sums
        return jackknifed(cosine_between(gram(a, b), gram(a, a), gram(b, b)), one, "noise")

    return measure


def shifted(rng: np.random.Generator, mean: np.ndarray, noise: float, n: int = 80) -> np.ndarray:
    return mean[None, None] + noise * rng.normal(size=(1, n, len(mean)))


def test_the_debiased_cosine_recovers_what_noise_hides(cosine: Callable[..., list]) -> None:
    rng = np.random.default_rng(0)
    u, v = orthonormal(rng, 64, 2).T
    one, other = u, 0.6 * u + 0.8 * v
    raw, free = [], []
    for _ in range(20):
        estimates = cosine(shift_of(shifted(rng, one, 1.0)), shift_of(shifted(rng, other, 1.0)))
        raw.append(estimates[0].value)
        free.append(estimates[1].value)
    assert np.mean(raw) < 0.45
    assert np.mean(free) == pytest.approx(0.6, abs=4 * np.std(free) / np.sqrt(20))


def test_noise_that_two_shifts_share_is_not_taken_for_agreement(
    cosine: Callable[..., list],
) -> None:
    """Both shifts subtract the same reading before, whose noise makes unrelated shifts agree."""
    rng = np.random.default_rng(1)
    u, v = orthonormal(rng, 64, 2).T
    raw, free = [], []
    for _ in range(20):
        before = rng.normal(size=(1, 80, 64))
        deltas = [shifted(rng, mean, 0.3) - before for mean in (u, v)]
        estimates = cosine(*map(shift_of, deltas))
        raw.append(estimates[0].value)
        free.append(estimates[1].value)
    assert np.mean(raw) > 0.35
    assert abs(np.mean(free)) < 4 * np.std(free) / np.sqrt(20)


def test_a_shift_that_is_only_noise_has_no_noise_free_cosine(cosine: Callable[..., list]) -> None:
    # Two families that moved in opposite directions: products across families are negative.
    delta = np.stack([np.ones((4, 8)), -np.ones((4, 8))]).reshape(1, 8, 8)
    free = cosine(shift_of(delta), shift_of(delta))[1]
    assert not free.defined
    assert free.reason == "noise"
    assert free.n == 8


def test_the_raw_cosine_is_the_cosine_of_the_means(cosine: Callable[..., list]) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3, 20, 6)) + 0.5
    found = cosine(shift_of(a), shift_of(b))[:3]
    for i, estimate in enumerate(found):
        x, y = a[i].mean(axis=0), b[i].mean(axis=0)
        assert estimate.value == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_the_spectrum_is_the_singular_values_of_the_shifts() -> None:
    from persona_probe.directions.before_after.spectrum import spectrum

    rng = np.random.default_rng(3)
    for n, d in ((30, 8), (8, 30)):
        delta = rng.normal(size=(2, n, d)) + 1
        for i, row in enumerate(spectrum(shift_of(delta), k=3)):
            expected = np.linalg.svd(delta[i], compute_uv=False)
            assert row.singular_values == pytest.approx(expected / np.sqrt(n))
            shares = expected**2 / (expected**2).sum()
            assert row.top_share.value == pytest.approx(shares[0])
            assert row.top_k_share.value == pytest.approx(shares[:3].sum())
            entropy = -(shares * np.log(shares)).sum()
            assert row.effective_rank.value == pytest.approx(np.exp(entropy))
            assert row.top_share.low < row.top_share.value < row.top_share.high


def test_one_vector_for_all_has_rank_one_and_noise_has_that_of_noise() -> None:
    from persona_probe.directions.before_after.spectrum import spectrum

    rng = np.random.default_rng(4)
    constant = np.broadcast_to(unit(rng, 1, 1, 32), (1, 60, 32))
    row = spectrum(shift_of(constant + 1e-6 * rng.normal(size=constant.shape)))[0]
    assert row.constant_share.value == pytest.approx(1, abs=1e-4)
    assert row.effective_rank.value == pytest.approx(1, abs=1e-3)
    noise = spectrum(shift_of(rng.normal(size=(1, 200, 32))))[0]
    assert abs(noise.constant_share.value) < 0.02
    assert noise.top_share.value == pytest.approx(noise.noise_top_share, rel=0.1)
    assert noise.effective_rank.value == pytest.approx(noise.noise_rank, rel=0.02)
    still = spectrum(shift_of(np.zeros((1, 12, 4))))[0]
    assert still.top_share.reason == "nothing moved"
    assert not still.effective_rank.defined


def test_subspaces_with_planted_angles() -> None:
    from persona_probe.directions.before_after.subspaces import subspace_angles

    rng = np.random.default_rng(5)
    axes = orthonormal(rng, 40, 4).T
    angle = 0.7
    turned = np.cos(angle) * axes[1] + np.sin(angle) * axes[2]
    weights = rng.normal(size=(120, 2)) * [3.0, 2.0]
    other = rng.normal(size=(120, 2)) * [3.0, 2.0]
    shifts = [
        shift_of((w @ basis)[None] + 1e-3 * rng.normal(size=(1, 120, 40)), name=name)
        for name, w, basis in (
            ("a", weights, axes[:2]),
            ("b", other, np.stack([axes[0], turned])),
        )
    ]
    row = subspace_angles(shifts, k=2)[0]
    assert (row.one, row.other, row.n) == ("a", "b", 120)
    assert row.cosines == pytest.approx([1.0, np.cos(angle)], abs=1e-2)
    assert row.across_halves.value == pytest.approx((1 + np.cos(angle)) / 2, abs=1e-2)
    assert row.ceiling.value == pytest.approx(1, abs=1e-2)
    assert row.chance.high < 0.5


def test_principal_cosines_agree_with_scipy() -> None:
    from scipy.linalg import subspace_angles as angles_of

    from persona_probe.directions.before_after.subspaces import principal_cosines

    rng = np.random.default_rng(6)
    a, b = orthonormal(rng, 12, 3), orthonormal(rng, 12, 3)
    found = principal_cosines(torch.from_numpy(a)[None], torch.from_numpy(b)[None])[0]
    assert sorted(found.tolist()) == pytest.approx(sorted(np.cos(angles_of(a, b))))


def test_unrelated_subspaces_are_at_chance_though_both_are_steady() -> None:
    from persona_probe.directions.before_after.subspaces import subspace_angles

    rng = np.random.default_rng(7)
    shifts = []
    for name in "ab":
        basis = orthonormal(rng, 64, 2).T
        weights = 3 * rng.normal(size=(100, 2))
        shifts.append(shift_of((weights @ basis)[None] + 0.1 * rng.normal(size=(1, 100, 64))))
        shifts[-1] = replace(shifts[-1], name=name)
    row = subspace_angles(shifts, k=2)[0]
    assert row.ceiling.value > 0.95
    assert row.chance.low - 0.05 < row.across_halves.value < row.chance.high + 0.05
    with pytest.raises(RequestError, match="at least one dimension"):
        subspace_angles(shifts, k=0)


def test_the_older_span_holds_the_planted_share() -> None:
    from persona_probe.directions.before_after.span import pre_existing

    rng = np.random.default_rng(8)
    axes = orthonormal(rng, 64, 5).T
    mean = np.sqrt(0.7) * axes[0] + np.sqrt(0.3) * axes[4]
    mixed = [direction(a) for a in (axes[0] + axes[1], axes[0] - axes[1], axes[2], 2 * axes[2])]
    before = torch.from_numpy(rng.normal(size=(1, 300, 64)))
    raw, free = [], []
    for _ in range(10):
        shift = shift_of(shifted(rng, mean, 1.0))
        row = pre_existing(shift, before, [mixed], draws=100)[0]
        raw.append(row.share)
        free.append(row.debiased.value)
        assert row.dimensions == 3
        assert row.isotropic == pytest.approx(3 / 64)
        assert row.chance.value == pytest.approx(3 / 64, abs=0.03)
        assert row.p == pytest.approx(1 / 101)
        assert row.n == 80
    assert np.mean(raw) < 0.5
    assert np.mean(free) == pytest.approx(0.7, abs=4 * np.std(free) / np.sqrt(10))


def test_directions_that_were_not_in_the_shift_hold_no_more_than_chance() -> None:
    from persona_probe.directions.before_after.span import pre_existing

    rng = np.random.default_rng(9)
    before = torch.from_numpy(rng.normal(size=(1, 200, 48)))
    p = []
    for _ in range(40):
        shift = shift_of(shifted(rng, unit(rng, 48), 0.5, n=40))
        older = [direction(unit(rng, 48)) for _ in range(3)]
        row = pre_existing(shift, before, [older], draws=49)[0]
        p.append(row.p)
    assert np.mean(np.array(p) <= 0.1) < 0.3
    assert 0.3 < np.mean(p) < 0.7
    with pytest.raises(RequestError, match="no directions that existed before"):
        pre_existing(shift, before, [[]])


def test_as_many_directions_as_dimensions_have_no_chance_level() -> None:
    from persona_probe.directions.before_after.span import pre_existing

    rng = np.random.default_rng(10)
    older = [direction(axis) for axis in np.eye(4)]
    shift = shift_of(rng.normal(size=(1, 12, 4)) + 1)
    row = pre_existing(shift, torch.from_numpy(rng.normal(size=(1, 30, 4))), [older], draws=9)[0]
    assert row.share == pytest.approx(1)
    assert not row.chance.defined
    assert np.isnan(row.p)


def test_whitening_is_scikit_learns_shrunk_covariance() -> None:
    from sklearn.covariance import ledoit_wolf

    from persona_probe.directions.before_after.whitening import Whitening, shrunk_covariance

    rng = np.random.default_rng(11)
    for n in (10, 200):
        x = rng.normal(size=(2, n, 16)) * np.linspace(0.2, 3, 16) + 5
        found = shrunk_covariance(torch.from_numpy(x)).numpy()
        for at_site, covariance in zip(x, found, strict=True):
            assert covariance == pytest.approx(ledoit_wolf(at_site)[0])
        white = Whitening.of(torch.from_numpy(x))
        vectors = torch.from_numpy(rng.normal(size=(2, 3, 16)))
        turned = white(vectors).numpy()
        expected = np.einsum("srd,sde,sqe->srq", vectors, np.linalg.inv(found), vectors)
        assert np.einsum("srd,sqd->srq", turned, turned) == pytest.approx(expected)


def test_sets_that_do_not_belong_together_are_refused_in_one_sentence() -> None:
    from persona_probe.directions.classes import require_found_in
    from persona_probe.directions.families.shift import Shift

    rng = np.random.default_rng(12)
    values = rng.normal(size=(8, 2, 4))
    before = activations(values)
    for after, said, error in (
        (activations(values, prefix="other"), "different examples", RequestError),
        (activations(values, position="response_mean"), "'response_mean'", RequestError),
        (activations(values[:, :1]), "1 of width 4", SiteMismatchError),
        (activations(values[:, :, :3]), "2 of width 3", SiteMismatchError),
        (replace(before, texts=("a",) * 8), None, None),
    ):
        if error is None:
            base = replace(before, texts=("a",) * 7 + ("b",))
            with pytest.raises(RequestError, match="different texts, first in example 'held-7'"):
                Shift.between(base, after)
            continue
        with pytest.raises(error, match=said):
            Shift.between(before, after)
    require_found_in([direction(np.ones(4), site=1)], before)
    for wrong, said in (
        (direction(np.ones(5)), "has 5 dimensions"),
        (direction(np.ones(4), site=7), "hold layers 0, 1 only"),
    ):
        with pytest.raises(SiteMismatchError, match=said):
            require_found_in([wrong], before)
    elsewhere = activations(values, model_hash="another")
    with pytest.raises(SiteMismatchError, match="find it again in that model"):
        require_found_in([direction(np.ones(4))], elsewhere)


def test_without_families_the_examples_are_resampled() -> None:
    from persona_probe.directions.families.shift import Shift

    rng = np.random.default_rng(13)
    before = replace(activations(rng.normal(size=(6, 1, 3))), families=("",) * 6)
    shift = Shift.between(before, before.with_values(before.values + 1))
    assert len(shift.family_sizes) == 6
    assert shift.mean.numpy() == pytest.approx(np.ones((1, 3)), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "at_most"), [(4.0, 0.97), (1.5, 0.995)])
def test_intervals_of_noise_free_numbers_cover_the_truth(size: float, at_most: float) -> None:
    """1,000 simulated studies; 20 families of 4 prompts that share a family shift.

    At size 1.5 the squared noise of the mean, 1.2, is half of the squared shift, 2.25. There the
    jackknife counts the product of two noises twice, and intervals are too wide, never too narrow.
    """
    from persona_probe.directions.before_after.span import pre_existing
    from persona_probe.directions.families.products import (
        cosine_between,
        cosine_with,
        gram,
        jackknifed,
    )

    rng = np.random.default_rng(14)
    axes = orthonormal(rng, 48, 4).T
    truth = 0.6
    one, other = size * axes[0], size * (truth * axes[0] + 0.8 * axes[1])
    before = torch.from_numpy(rng.normal(size=(1, 60, 48)))
    hits: dict[str, list[bool]] = {"with": [], "between": [], "span": []}
    for _ in range(1_000):
        a, b = (
            mean
            + np.repeat(0.5 * rng.normal(size=(1, 20, 48)), 4, axis=1)
            + rng.normal(size=(1, 80, 48))
            for mean in (one, other)
        )
        x, y = shift_of(a), shift_of(b)
        u, v = x.family_sums, y.family_sums
        along = (v[0] @ torch.from_numpy(axes[0])).numpy()[None, None]
        found = {
            "with": jackknifed(cosine_with(along, gram(v, v), y.family_sizes), y, "")[1],
            "between": jackknifed(cosine_between(gram(u, v), gram(u, u), gram(v, v)), x, "")[1],
            "span": pre_existing(y, before, [[direction(axes[0])]], draws=1)[0].debiased,
        }
        for name, estimate in found.items():
            true = truth**2 if name == "span" else truth
            hits[name].append(estimate.low <= true <= estimate.high)
    coverage = {name: float(np.mean(of)) for name, of in hits.items()}
    assert all(0.93 <= share <= at_most for share in coverage.values()), coverage
