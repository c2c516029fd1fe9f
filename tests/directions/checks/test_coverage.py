"""Do intervals cover the truth as often as they say? Simulated studies in which it is known."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

FAMILY_SD, SLOPE_SD = 0.5, 0.5  # of a family's level, and of its own effect
ALMOST = (0.93, 0.97)
CAUTIOUS = (0.93, 1.0)  # near 1, where a sample often has no error at all


def separated(gap: float, families: int, per_family: int, draws: int) -> dict[str, float]:
    """Share of intervals that cover, by number, for normal scores `gap` apart."""
    from persona_probe.directions.checks.separation import separation

    rng = np.random.default_rng(0)
    n = families * per_family
    y, family = np.tile([True, False], n // 2), np.arange(n) // per_family
    variance = 1 + FAMILY_SD**2 + SLOPE_SD**2 / 4
    area = norm.cdf(gap / np.sqrt(2 * variance))
    truth = {
        "auroc": area,
        "balanced_accuracy": norm.cdf(gap / 2 / np.sqrt(variance)),
        "d_prime": gap / np.sqrt(variance),
        "gain": area - 0.5,
    }
    hits = Counter[str]()
    for _ in range(draws):
        level, slope = FAMILY_SD * rng.normal(size=families), SLOPE_SD * rng.normal(size=families)
        scores = rng.normal(size=n) + level[family] + (gap + slope[family]) * (y - 0.5)
        useless = {"useless": rng.normal(size=n) + rng.normal(size=families)[family]}
        found = separation(scores[None], np.zeros(1), useless, y, [str(f) for f in family])
        for name, true in truth.items():
            [estimate] = getattr(found, name)
            hits[name] += estimate.low <= true <= estimate.high
    return {name: hits[name] / draws for name in truth}


def test_intervals_of_separation_cover_the_truth() -> None:
    for share in separated(2.0, 20, 8, 100).values():
        assert share >= 0.87  # a true 95 % falls below with probability 0.002


@pytest.mark.slow
@pytest.mark.parametrize(("families", "per_family"), [(15, 14), (40, 8)])
@pytest.mark.parametrize(
    ("gap", "bounds"), [(0.5, ALMOST), (1.5, ALMOST), (3.0, ALMOST), (5.0, CAUTIOUS)]
)
def test_intervals_of_separation_cover_in_93_to_97_percent(
    gap: float, bounds: tuple[float, float], families: int, per_family: int
) -> None:
    """AUROC from .62 to .999. Resampling families covers .68-.93 of the two last."""
    found = separated(gap, families, per_family, 1_000)
    low, high = bounds
    noise = 2 * np.sqrt(0.95 * 0.05 / 1_000)
    for name in ("auroc", "balanced_accuracy"):
        assert low - noise <= found[name] <= high + noise, found
    for name in ("d_prime", "gain"):
        assert ALMOST[0] - noise <= found[name] <= ALMOST[1] + noise, found


def test_no_error_in_few_families_is_not_certainty() -> None:
    """Fifteen families in order: with one of eight out of order that happens now and then."""
    from persona_probe.directions.checks.separation import auroc_intervals

    y = np.tile([True, False], 60)
    ends = []
    for families in (5, 15, 60):
        index = [str(i * families // 120) for i in range(120)]
        [found] = auroc_intervals(1.0 * y[None], y, index)
        assert (found.value, found.high) == (1.0, 1.0)
        ends.append(found.low)
    assert ends[0] < 0.7 < ends[1] < 0.9 < ends[2] < 1.0
    [other] = auroc_intervals(-1.0 * y[None], y, index)
    assert (other.low, other.high) == (0.0, pytest.approx(1 - ends[2]))


def differing(families: int, per_family: int, width: int, size: float) -> Any:
    """Pairs whose differences share `size` along one axis, and a part within each family."""
    from tests.directions.moved import activations

    rng = np.random.default_rng(0)
    n = families * per_family
    labels, ids = ["own"] * n + ["neutral"] * n, [f"q-{i}" for i in range(n)] * 2

    def draw() -> Any:
        own = np.repeat(0.5 * rng.normal(size=(families, width)), per_family, axis=0)
        delta = size * np.eye(width)[0] + own + rng.normal(size=(n, width))
        neutral = rng.normal(size=(n, width))
        values = np.concatenate([neutral + delta, neutral])[:, None]
        sets = activations(values, per_family=per_family, labels=labels, ids=ids)
        return replace(sets, families=sets.families[:n] * 2), delta

    return draw


@pytest.mark.slow
@pytest.mark.parametrize(("width", "size"), [(32, 1.0), (32, 2.0), (256, 2.0)])
def test_intervals_of_consistency_cover_the_truth(width: int, size: float) -> None:
    """Never less than 93 %; where the shared part is small the jackknife is cautious.

    The plain ratio of lengths, which counts the noise of the mean, covers none at width 256.
    """
    from persona_probe.directions.checks.reliability import reliability
    from persona_probe.directions.finders.mean_difference import MeanDifference

    _, many = differing(20_000, 1, width, size)()
    lengths = np.linalg.norm(many, axis=1)
    alike = (many / lengths[:, None]).mean(axis=0)
    truth = {"consistency": size / lengths.mean(), "pairwise": float(alike @ alike)}
    draw, hits = differing(20, 4, width, size), Counter[str]()
    for _ in range(200):
        sets, _ = draw()
        labelled = sets, MeanDifference(), "own", "neutral"
        [row] = reliability(*labelled, halvings=1, resamples=1).values()
        for name, true in truth.items():
            estimate = getattr(row, name)
            hits[name] += estimate.low <= true <= estimate.high
    for name in truth:
        assert hits[name] / 200 >= 0.93 - 0.03, (name, hits[name] / 200)


@pytest.mark.slow
@pytest.mark.parametrize("families", [15, 40])
def test_intervals_of_the_projection_shift_cover_in_93_to_97_percent(families: int) -> None:
    """Along a direction, over a deviation before that is estimated from the same families."""
    from persona_probe.directions.before_after.comparison import _projection_shifts
    from tests.directions.moved import activations, direction

    rng = np.random.default_rng(1)
    along, per_family, width, draws = direction(np.eye(8)[0]), 6, 8, 1_000
    truth, hits = 0.8 / np.sqrt(1.25), 0
    for _ in range(draws):
        level, moved = (
            np.repeat(sd * rng.normal(size=(families, width)), per_family, axis=0)
            for sd in (0.5, 0.4)
        )
        before = level + rng.normal(size=level.shape)
        after = before + 0.8 * np.eye(8)[0] + moved + 0.5 * rng.normal(size=level.shape)
        sets = [activations(x[:, None], per_family=per_family) for x in (before, after)]
        [shift] = _projection_shifts(*sets, [along])
        hits += shift.low <= truth <= shift.high
    noise = 2 * np.sqrt(0.95 * 0.05 / draws)
    assert ALMOST[0] - noise <= hits / draws <= ALMOST[1] + noise
