"""Shared and specific parts of several directions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.errors import RequestError
from tests.directions.moved import activations, orthonormal


@pytest.fixture
def orthogonal(planted: Any) -> dict[str, Any]:
    """Four orthogonal directions of length 2 at one site."""
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.models.site import Site

    finder = finder_named("mean_difference")
    one = find_directions(planted().activations, finder, "hero", "neutral")[Site(0)]
    axes = torch.eye(32)
    return {
        name: {Site(0): replace(one, unit=axes[i], gap=2.0, persona=name)}
        for i, name in enumerate(["a", "b", "c", "d"])
    }


def test_orthogonal_directions_share_a_quarter_of_four(orthogonal: dict[str, Any]) -> None:
    from persona_probe.directions.families.parts import energy_shares, shared_part, specific_parts
    from persona_probe.models.site import Site

    shares = energy_shares(orthogonal)[Site(0)]
    assert list(shares.values()) == pytest.approx([0.75] * 4)
    shared = shared_part(orthogonal)[Site(0)]
    assert shared.raw[:4] == pytest.approx(torch.full((4,), 0.5))
    specific = specific_parts(orthogonal)
    for name, by_site in specific.items():
        whole = by_site[Site(0)] + shared
        assert whole.raw == pytest.approx(orthogonal[name][Site(0)].raw, abs=1e-6)
        assert by_site[Site(0)].persona == name
    total = sum(by_site[Site(0)].raw for by_site in specific.values())
    assert total == pytest.approx(torch.zeros(32), abs=1e-6)


def test_equal_directions_have_nothing_of_their_own(orthogonal: dict[str, Any]) -> None:
    from persona_probe.directions.families.parts import energy_shares
    from persona_probe.models.site import Site

    same = dict.fromkeys("xyz", orthogonal["a"])
    assert list(energy_shares(same)[Site(0)].values()) == pytest.approx([0.0] * 3, abs=1e-9)


def test_one_persona_or_no_common_site_is_refused(orthogonal: dict[str, Any]) -> None:
    from persona_probe.directions.families.parts import shared_part
    from persona_probe.models.site import Site

    with pytest.raises(RequestError, match="two personas or more"):
        shared_part({"a": orthogonal["a"]})
    elsewhere = {Site(1): replace(orthogonal["b"][Site(0)], site=Site(1))}
    with pytest.raises(RequestError, match="no site in common"):
        shared_part({"a": orthogonal["a"], "b": elsewhere})


def test_noise_makes_shares_too_large_and_the_estimate_takes_it_out() -> None:
    """Two personas: 1.5 along a common axis, 1 each along one of their own: a share of 0.154."""
    from persona_probe.directions.families.parts import energy_estimates, energy_shares
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.mean_difference import MeanDifference
    from persona_probe.models.site import Site

    rng = np.random.default_rng(0)
    axes = orthonormal(rng, 48, 3).T
    truth = 0.5 / (1.5**2 + 1)
    raw, free, covered = [], [], []
    for _ in range(30):
        classes = [0 * axes[0], 1.5 * axes[0] + axes[1], 1.5 * axes[0] + axes[2]]
        values = np.concatenate([m + rng.normal(size=(40, 1, 48)) for m in classes])
        labels = [name for name in ("neutral", "a", "b") for _ in range(40)]
        data = activations(values, labels=labels, ids=[f"p{i}" for i in range(40)] * 3)
        data = replace(data, families=tuple(f"f{i % 40 // 4}" for i in range(120)))
        found = {p: find_directions(data, MeanDifference(), p, "neutral") for p in "ab"}
        raw.append(energy_shares(found)[Site(0)]["a"])
        estimate = energy_estimates(data, {"a": "a", "b": "b"}, "neutral")[Site(0)]["a"]
        assert (estimate.n, estimate.n_clusters) == (40, 10)
        free.append(estimate.value)
        covered.append(estimate.low < truth < estimate.high)
    assert np.mean(raw) > truth + 0.05
    assert np.mean(free) == pytest.approx(truth, abs=4 * np.std(free) / np.sqrt(30))
    assert np.mean(covered) > 0.8


def test_unpaired_examples_have_no_noise_free_share(planted: Any) -> None:
    from persona_probe.directions.families.parts import energy_estimates

    data = planted(0).activations
    apart = replace(data, ids=tuple(f"x{i}" for i in range(len(data))))
    found = energy_estimates(apart, {"a": "hero", "b": "hero"}, "neutral")
    for shares in found.values():
        assert shares["a"].reason == "the personas' examples are not in pairs"
    with pytest.raises(RequestError, match="two personas or more"):
        energy_estimates(data, {"a": "hero"}, "neutral")
