"""Choosing a site: on the select part, at middle depth, once."""

from typing import Any

import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import RequestError, SplitLeakError


@pytest.fixture
def ten_layers(planted: Any) -> tuple[Any, Any]:
    """Ten sites of which layer 5 separates best in the middle, and layer 9 best of all."""

    from persona_probe.directions.finder import find_directions

    def louder(seed: int, prefix: str) -> Any:
        data = planted(seed, sites=tuple(range(10)), gap=1.0, prefix=prefix)
        sign = torch.tensor([0.5 if label == "hero" else -0.5 for label in data.activations.labels])
        strength = torch.zeros(10)
        strength[5], strength[9] = 5.0, 20.0
        extra = sign[:, None, None] * strength[None, :, None] * data.truth[None]
        return data.activations.with_values(data.activations.values + extra)

    found_on, select = louder(0, "family"), louder(1, "select")
    return find_directions(found_on, FINDERS["mean_difference"](), "hero", "neutral"), select


@pytest.mark.parametrize("criterion", ["d_prime", "auroc"])
def test_the_best_site_of_middle_depth_is_chosen(criterion: str, ten_layers: Any) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.models.site import Site

    directions, select = ten_layers
    chosen = select_site(directions, select, 10, criterion=criterion)
    assert chosen.site == Site(5)
    everywhere = select_site(directions, select, 10, criterion=criterion, depths="all")
    assert everywhere.site == Site(9)


def test_what_was_used_to_select_can_no_longer_evaluate(ten_layers: Any) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.directions.checks.validation import validate

    directions, select = ten_layers
    chosen = select_site(directions, select, 10)
    assert chosen.families_used > directions[chosen.site].families_used
    with pytest.raises(SplitLeakError, match="'select-0' first"):
        validate({chosen.site: chosen}, select)


def test_selecting_on_what_was_found_on_is_refused(ten_layers: Any, planted: Any) -> None:
    from persona_probe.directions.checks.selection import select_site

    directions, _ = ten_layers
    same = planted(3, sites=tuple(range(10))).activations
    with pytest.raises(SplitLeakError):
        select_site(directions, same, 10)


def test_no_candidate_and_an_unknown_criterion_are_refused(ten_layers: Any) -> None:
    from persona_probe.directions.checks.selection import select_site, separations
    from persona_probe.models.site import Site

    directions, select = ten_layers
    last = {Site(9): directions[Site(9)]}
    with pytest.raises(RequestError, match=r"no direction at depths 0\.2-0\.8 .* only at 9"):
        select_site(last, select, 10)
    with pytest.raises(RequestError, match="no criterion 'beauty'"):
        separations(directions, select, "beauty")
