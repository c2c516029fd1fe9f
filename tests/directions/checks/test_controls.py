"""Controls are matched, seeded, and hold nothing of the effect."""

from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def found(planted: Any) -> dict[Any, Any]:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    return find_directions(
        planted().activations, finder_named("mean_difference"), "hero", "neutral"
    )


def test_random_directions_keep_everything_but_the_vector(found: Any, planted: Any) -> None:
    from persona_probe.directions.checks.controls import (
        balanced_shuffles,
        covariance_matched,
        isotropic,
    )
    from persona_probe.directions.finders import finder_named

    activations = planted().activations
    finder = finder_named("mean_difference")
    for draws in (
        isotropic(found, 3, seed=5),
        covariance_matched(found, activations, 3, seed=5),
        balanced_shuffles(found, activations, finder, 3, seed=5),
    ):
        assert len(draws) == 3
        for draw in draws:
            for site, control in draw.items():
                assert control.gap == found[site].gap
                assert control.norm == found[site].norm
                assert control.raw.norm() == pytest.approx(found[site].gap, rel=1e-5)
                assert abs(control.cosine(found[site])) < 0.9
                assert control.finder != found[site].finder
                assert control.provenance.seed == 5
                assert control.families_used == found[site].families_used


def test_draws_depend_on_the_seed_and_not_on_the_choice_of_sites(found: Any) -> None:
    from persona_probe.directions.checks.controls import isotropic
    from persona_probe.models.site import Site

    every = isotropic(found, 2, seed=1)
    alone = isotropic({Site(2): found[Site(2)]}, 2, seed=1)
    assert (every[1][Site(2)].unit == alone[1][Site(2)].unit).all()
    assert (every[0][Site(0)].unit != every[0][Site(1)].unit).any()
    other = isotropic(found, 2, seed=2)
    assert (every[0][Site(0)].unit != other[0][Site(0)].unit).any()


def test_isotropic_directions_have_the_cosines_of_chance(found: Any) -> None:
    from persona_probe.directions.checks.controls import isotropic
    from persona_probe.models.site import Site

    cosines = [draw[Site(0)].cosine(found[Site(0)]) for draw in isotropic(found, 500)]
    assert np.mean(cosines) == pytest.approx(0, abs=0.03)
    assert np.std(cosines) == pytest.approx(1 / np.sqrt(32), rel=0.1)


def test_covariance_matched_directions_have_the_covariance_of_the_activations(
    planted: Any,
) -> None:

    from persona_probe.directions.checks.controls import covariance_matched, isotropic
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.models.site import Site

    data = planted().activations
    scales = torch.ones(32)
    scales[0] = 30.0
    loud = data.with_values(data.values * scales)
    found = find_directions(loud, finder_named("mean_difference"), "hero", "neutral")

    def share(draws: list[Any]) -> float:
        return float(np.mean([float(draw[Site(0)].unit[0] ** 2) for draw in draws]))

    assert share(isotropic(found, 300)) < 0.06
    assert share(covariance_matched(found, loud, 300)) > 0.8


def _cosines_of_shuffles(consistency: float, balanced: bool) -> tuple[float, float]:
    """Mean |cos| to the true direction of 300 shuffles of 128 pairs at width 512."""
    from persona_probe.directions.checks.relabelling import (
        balanced_relabellings,
        class_group,
        pair_index,
    )
    from persona_probe.directions.finders.mean_difference import MeanDifference

    rng = np.random.default_rng(0)
    n, d, draws = 128, 512, 300
    common = rng.normal(size=d)
    common /= np.linalg.norm(common)
    signal = np.sqrt(d / (1 / consistency**2 - 1))
    half = torch.from_numpy(signal * common + rng.normal(size=(n, d))) / 2
    x = torch.cat([half, -half])[None]
    y = torch.arange(2 * n) < n
    deltas = 2 * half
    measured = float(deltas.mean(0).norm() / deltas.norm(dim=1).mean())
    pairs = pair_index([str(i) for i in range(n)] * 2, y)
    assert pairs is not None
    if balanced:
        labels, weights = balanced_relabellings(y, pairs, class_group(pairs, y), draws, rng)
    else:
        coins = torch.from_numpy(rng.random((draws, n)) < 0.5)[:, pairs]
        labels, weights = torch.where(coins, y, ~y), torch.ones(draws, 2 * n)
    raw = MeanDifference().fit_many(x, labels, weights)[:, 0]
    true = MeanDifference().fit(x[0], y)
    return measured, float(torch.cosine_similarity(raw, true[None], dim=1).abs().mean())


@pytest.mark.parametrize(
    ("consistency", "leak"), [(0.21, 0.17), (0.45, 0.34), (0.71, 0.52), (0.90, 0.68)]
)
def test_unbalanced_shuffles_keep_the_effect_and_balanced_ones_do_not(
    consistency: float, leak: float
) -> None:
    """The leak of coin-toss shuffles at four consistencies, as documented, against none."""
    measured, tossed = _cosines_of_shuffles(consistency, balanced=False)
    assert measured == pytest.approx(consistency, abs=0.03)
    assert tossed == pytest.approx(leak, abs=0.07)
    _, balanced = _cosines_of_shuffles(consistency, balanced=True)
    assert balanced == pytest.approx(np.sqrt(2 / (np.pi * 512)), abs=0.015)


def test_half_of_the_pairs_is_exchanged_and_an_odd_one_left_out() -> None:
    from persona_probe.directions.checks.relabelling import balanced_relabellings, exchange_units

    y = torch.tensor([True, False] * 5)
    ids = [str(i // 2) for i in range(10)]
    unit, group = exchange_units(ids, y)
    rng = np.random.default_rng(0)
    labels, weights = balanced_relabellings(y, unit, group, 40, rng)
    assert (weights.sum(dim=1) == 8).all()
    exchanged = ((labels != y) & (weights > 0)).sum(dim=1)
    assert (exchanged == 4).all()
    assert (labels[:, 0::2] != labels[:, 1::2]).all()
    # 5 pairs to leave out, times 6 choices of 2 in 4: 30 relabellings are possible.
    signed = torch.where(labels == y, weights, -weights)
    assert len({tuple(row) for row in signed.tolist()}) > 15


def test_without_pairs_each_pseudo_class_takes_half_of_each_true_class() -> None:
    from persona_probe.directions.checks.relabelling import balanced_relabellings, exchange_units

    y = torch.tensor([True] * 6 + [False] * 10)
    unit, group = exchange_units([str(i) for i in range(16)], y)
    labels, weights = balanced_relabellings(y, unit, group, 40, np.random.default_rng(0))
    assert (weights == 1).all()
    assert (labels[:, :6].sum(dim=1) == 3).all()
    assert (labels[:, 6:].sum(dim=1) == 5).all()


def test_a_flipped_direction_still_claims_its_class(found: Any) -> None:
    from persona_probe.directions.checks.controls import sign_flipped

    for site, flipped in sign_flipped(found).items():
        assert flipped.cosine(found[site]) == pytest.approx(-1)
        assert flipped.positive_label == found[site].positive_label
        x = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
        assert flipped.project(x) == pytest.approx(-found[site].project(x), abs=1e-5)


def test_orthogonalised_and_foreign_directions_take_the_scale_of_the_true_ones(
    found: Any, planted: Any
) -> None:
    from persona_probe.directions.checks.controls import norm_matched, orthogonalised
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    other_data = planted(7, gap=9.0, truth_seed=99).activations
    other = find_directions(other_data, finder_named("mean_difference"), "hero", "neutral")
    for site, control in orthogonalised(found, other).items():
        assert abs(control.cosine(other[site])) < 1e-6
        assert control.gap == found[site].gap
    for site, control in norm_matched(other, found).items():
        assert control.cosine(other[site]) == pytest.approx(1)
        assert other[site].gap > 2 * found[site].gap
        assert control.gap == found[site].gap


def test_other_personas_and_nuisances_by_name(found: Any, planted: Any) -> None:
    from persona_probe.directions.checks.controls import orthogonalised_to, wrong_constitutions
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.errors import RequestError
    from persona_probe.models.site import Site

    finder = finder_named("mean_difference")
    others = {
        name: find_directions(planted(seed, truth_seed=seed).activations, finder, "hero", "neutral")
        for seed, name in ((7, "villain"), (8, "fool"))
    }
    wrong = wrong_constitutions({"hero": found, **others}, "hero")
    assert list(wrong) == ["villain", "fool"]
    for name, by_site in wrong.items():
        for site, control in by_site.items():
            assert control.raw.norm() == pytest.approx(found[site].gap, rel=1e-5)
            assert control.norm == found[site].norm
            assert control.cosine(others[name][site]) == pytest.approx(1)
    without = orthogonalised_to(found, others)
    assert list(without) == ["villain", "fool", "all"]
    for site, control in without["all"].items():
        assert all(abs(control.cosine(other[site])) < 1e-6 for other in others.values())
        assert control.gap == found[site].gap
    assert list(orthogonalised_to(found, {"fool": others["fool"]})) == ["fool"]
    with pytest.raises(RequestError, match="no direction of 'saint'; there are hero"):
        wrong_constitutions({"hero": found}, "saint")
    short = {"hero": found, "fool": {Site(0): others["fool"][Site(0)]}}
    with pytest.raises(RequestError, match="no direction of 'fool' at layer 1"):
        wrong_constitutions(short, "hero")


def test_every_control_has_the_norm_of_the_true_direction(found: Any, planted: Any) -> None:
    from persona_probe.directions.checks.controls import sign_flipped

    for site, flipped in sign_flipped(found).items():
        assert flipped.gap == found[site].gap
        assert flipped.raw.norm() == pytest.approx(found[site].raw.norm())
