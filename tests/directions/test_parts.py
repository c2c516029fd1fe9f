"""Shared and specific parts of several directions."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError


@pytest.fixture
def orthogonal(planted: Any) -> dict[str, Any]:
    """Four orthogonal directions of length 2 at one site."""
    from persona_probe.directions import finder_named
    from persona_probe.directions.finder import find_directions
    from persona_probe.models.site import Site

    finder = finder_named("mean_difference")
    one = find_directions(planted().activations, finder, "hero", "neutral")[Site(0)]
    axes = torch.eye(32)
    return {
        name: {Site(0): replace(one, unit=axes[i], gap=2.0, persona=name)}
        for i, name in enumerate(["a", "b", "c", "d"])
    }


def test_orthogonal_directions_share_a_quarter_of_four(orthogonal: dict[str, Any]) -> None:
    from persona_probe.directions.parts import energy_shares, shared_part, specific_parts
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
    from persona_probe.directions.parts import energy_shares
    from persona_probe.models.site import Site

    same = dict.fromkeys("xyz", orthogonal["a"])
    assert list(energy_shares(same)[Site(0)].values()) == pytest.approx([0.0] * 3, abs=1e-9)


def test_one_persona_or_no_common_site_is_refused(orthogonal: dict[str, Any]) -> None:
    from persona_probe.directions.parts import shared_part
    from persona_probe.models.site import Site

    with pytest.raises(RequestError, match="two personas or more"):
        shared_part({"a": orthogonal["a"]})
    elsewhere = {Site(1): replace(orthogonal["b"][Site(0)], site=Site(1))}
    with pytest.raises(RequestError, match="no site in common"):
        shared_part({"a": orthogonal["a"], "b": elsewhere})
