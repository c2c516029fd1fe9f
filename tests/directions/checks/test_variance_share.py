"""How much of a direction lies where activations vary."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS


def flat(n: int, d: int = 40, rank: int = 4) -> torch.Tensor:
    """Activations at one site: `rank` axes of deviation 10, the others of 0.1."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(d) < rank, 10.0, 0.1)
    return torch.from_numpy(rng.normal(size=(1, n, d)) * scale)


def share(vector: torch.Tensor, n: int = 400) -> Any:
    from persona_probe.directions.checks.variance_share import variance_shares

    unit = (vector / vector.norm())[None]
    return variance_shares(unit, None, flat(n), 50, 0)[0]


@pytest.mark.parametrize("n", [400, 30], ids=["more examples than axes", "fewer"])
def test_inside_across_and_in_between(n: int) -> None:
    axes = torch.eye(40, dtype=torch.float64)
    inside, outside = share(axes[1], n), share(axes[20], n)
    assert inside.k == outside.k == 4
    assert inside.share.value == pytest.approx(1, abs=0.01)
    assert outside.share.value == pytest.approx(0, abs=0.01)
    assert share(axes[1] + axes[20], n).share.value == pytest.approx(0.5, abs=0.02)
    assert not inside.flag
    assert outside.flag
    assert inside.isotropic == 4 / 40
    assert inside.matched.low > 0.95


def test_where_all_axes_vary_alike_no_complement_is_of_low_variance() -> None:
    from persona_probe.directions.checks.variance_share import variance_shares

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(1, 2_000, 40)))
    _, axes = torch.linalg.eigh(x[0].T @ x[0])
    least = variance_shares(axes[:, 0][None], None, x, 9, 0)[0]
    assert least.share.value < 0.1
    assert not least.flag


def test_the_interval_is_the_jackknifes_and_holds_its_value() -> None:
    """A mean of 20 vectors: leaving one out at a time gives its standard error."""
    from scipy.stats import t

    from persona_probe.directions.checks.variance_share import variance_shares

    rng = np.random.default_rng(1)
    axis = torch.eye(40, dtype=torch.float64)[0]
    vectors = axis + 0.3 * torch.from_numpy(rng.normal(size=(20, 40)))
    total = vectors.sum(dim=0)
    left_out = torch.nn.functional.normalize(total - vectors, dim=1)[:, None]
    unit = (total / total.norm())[None]
    share = variance_shares(unit, left_out, flat(400), 9, 0, n_units=20)[0].share
    inside = left_out[:, 0, :4].square().sum(dim=1).numpy()
    error = np.sqrt(19 / 20 * ((inside - inside.mean()) ** 2).sum())
    assert share.low < share.value < share.high
    assert share.high - share.low == pytest.approx(2 * t.ppf(0.975, 19) * error, rel=0.05)
    assert (share.n, share.n_clusters) == (400, 20)
    alone = variance_shares(unit, None, flat(400), 9, 0)[0]
    assert np.isnan(alone.share.low)
    assert alone.share.reason is not None


@pytest.mark.parametrize("name", FINDERS)
def test_every_interval_holds_its_own_value(name: str, planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    found_on, held_out = planted(0).activations, planted(1, prefix="held").activations
    found = find_directions(found_on, FINDERS[name](), "hero", "neutral")
    for row in validate(found, held_out, found_on, relabellings=9).rows:
        assert row.variance_share is not None
        share = row.variance_share.share
        assert share.low <= share.value <= share.high
        assert share.low < share.high


def test_a_probe_that_reads_quiet_axes_is_flagged_and_the_mean_difference_is_not(
    planted: Any,
) -> None:
    """The classes differ mostly along a loud axis; a quiet one tells them apart better."""
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    def data(seed: int, prefix: str) -> Any:
        drawn = planted(seed, gap=0.0, sites=(0,), prefix=prefix).activations
        sign = torch.tensor([0.5 if label == "hero" else -0.5 for label in drawn.labels])
        scale = torch.full((32,), 0.05)
        scale[:2] = 5.0
        values = drawn.values * scale
        values[:, 0, 0] += 20 * sign
        values[:, 0, 9] += 2.0 * sign
        return drawn.with_values(values)

    found_on, held_out = data(0, "family"), data(1, "held")
    flags = {}
    for name in ("mean_difference", "linear_probe"):
        found = find_directions(found_on, finder_named(name), "hero", "neutral")
        row = validate(found, held_out, found_on, relabellings=9).rows[0]
        assert row.variance_share is not None
        flags[name] = row.variance_share.flag
    assert flags == {"mean_difference": False, "linear_probe": True}
