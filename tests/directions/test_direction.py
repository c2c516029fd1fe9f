"""A direction: its units, its arithmetic, and what it refuses."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    SiteMismatchError,
    SplitLeakError,
)


def two(planted: Any) -> tuple[Any, Any]:
    """The directions at sites 0 and 1 moved to one site, so that they can be combined."""
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.models.site import Site

    found = find_directions(
        planted().activations, finder_named("mean_difference"), "hero", "neutral"
    )
    return found[Site(0)], replace(found[Site(1)], site=Site(0), persona="villain")


def test_class_means_lie_half_a_gap_from_the_midpoint(planted: Any) -> None:
    from persona_probe.models.site import Site

    direction, _ = two(planted)
    activations = planted().activations
    heroes = activations.where(labels=["hero"]).site(Site(0))
    neutral = activations.where(labels=["neutral"]).site(Site(0))
    assert direction.project(heroes).mean() == pytest.approx(0.5, abs=1e-4)
    assert direction.project(neutral).mean() == pytest.approx(-0.5, abs=1e-4)
    difference = heroes.double().mean(dim=0) - neutral.double().mean(dim=0)
    assert direction.raw.double() == pytest.approx(difference, abs=1e-5)


def test_sums_and_differences_are_those_of_the_raw_vectors(planted: Any) -> None:
    one, other = two(planted)
    assert (one + other).raw == pytest.approx(one.raw + other.raw, abs=1e-5)
    assert (one - other).raw == pytest.approx(one.raw - other.raw, abs=1e-5)
    assert (one - other).persona == "hero-villain"
    assert math.isnan((one + other).midpoint)
    with pytest.raises(PersonaProbeError, match="no midpoint"):
        (one + other).project(one.raw)
    assert (one + other).centred(1.0).project(0 * one.raw) < 0


def test_scaling_keeps_the_unit_and_a_negative_factor_turns_it_round(planted: Any) -> None:
    direction, _ = two(planted)
    assert (2.0 * direction).gap == pytest.approx(2 * direction.gap)
    assert ((2.0 * direction).unit == direction.unit).all()
    turned = direction * -0.5
    assert (turned.unit == -direction.unit).all()
    assert (turned.positive_label, turned.negative_label) == ("neutral", "hero")
    x = 3.0 * direction.unit
    assert (-direction).project(x) == pytest.approx(-direction.project(x))
    with pytest.raises(PersonaProbeError, match="gap must be positive"):
        direction * 0.0


def test_orthogonalised_leaves_nothing_along_the_others(planted: Any) -> None:
    one, other = two(planted)
    assert abs(one.cosine(other)) > 0.01
    rest = one.orthogonalised(other)
    assert abs(rest.cosine(other)) < 1e-6
    assert rest.gap == pytest.approx(one.gap * math.sqrt(1 - one.cosine(other) ** 2), rel=1e-5)
    assert one.orthogonalised(other, other, 2.0 * other).cosine(rest) == pytest.approx(1)
    with pytest.raises(DegenerateClassesError, match="span of the others"):
        one.orthogonalised(other, one + other)


def test_the_mean_of_directions_is_the_mean_of_raw_vectors(planted: Any) -> None:
    from persona_probe.directions.direction import mean_direction

    one, other = two(planted)
    mean = mean_direction([one, other], "shared")
    assert mean.raw == pytest.approx((one.raw + other.raw) / 2, abs=1e-5)
    assert (mean.persona, mean.positive_label) == ("shared", "hero")


def test_directions_at_other_sites_or_of_other_models_are_not_added(planted: Any) -> None:
    from persona_probe.models.site import Site

    one, other = two(planted)
    with pytest.raises(SiteMismatchError, match="do not live in the same space"):
        one + replace(other, site=Site(1))
    elsewhere = other.provenance.with_(model_hash="another")
    with pytest.raises(SiteMismatchError, match="model another"):
        one - replace(other, provenance=elsewhere)


def space(**changes: Any) -> SimpleNamespace:
    """The shape and hashes of the model that the planted activations claim to come from."""
    here = {"n_layers": 3, "d_model": 32, "model_hash": "0123456789abcdef"}
    return SimpleNamespace(**(here | {"chat_template_hash": "none"} | changes))


def test_nothing_is_left_of_a_direction_minus_itself(planted: Any) -> None:
    one, _ = two(planted)
    with pytest.raises(DegenerateClassesError, match="has length 0"):
        one - one


def test_cosines_need_equal_widths(planted: Any) -> None:
    one, _ = two(planted)
    narrow = replace(one, unit=one.unit[:8] / one.unit[:8].norm())
    with pytest.raises(SiteMismatchError, match=r"has 32 dimensions, .* has 8"):
        one.cosine(narrow)


def test_only_the_model_it_was_found_in_fits(planted: Any) -> None:
    direction, _ = two(planted)
    direction.check_fits(space())
    with pytest.raises(SiteMismatchError, match=r"has 32 dimensions, the model's .* has 64"):
        direction.check_fits(space(d_model=64), allow_other_model=True)
    with pytest.raises(SiteMismatchError, match="layers 0 to -1"):
        direction.check_fits(space(n_layers=0), allow_other_model=True)
    with pytest.raises(SiteMismatchError, match="in a model with hash 0123456789abcdef"):
        direction.check_fits(space(model_hash="other"))
    direction.check_fits(space(model_hash="other"), allow_other_model=True)


def test_another_chat_template_does_not_fit(planted: Any) -> None:
    direction, _ = two(planted)
    direction.check_fits(space(chat_template_hash="any"))
    read_with = direction.provenance.with_(chat_template_hash="abc")
    templated = replace(direction, provenance=read_with)
    templated.check_fits(space(chat_template_hash="abc"))
    with pytest.raises(SiteMismatchError, match="under a chat template with hash abc"):
        templated.check_fits(space(chat_template_hash="other"))


def test_it_remembers_the_families_it_was_found_on(planted: Any) -> None:
    direction, other = two(planted)
    direction.check_held_out(["held-0", "held-1"])
    with pytest.raises(SplitLeakError, match="'family-3' first"):
        direction.check_held_out(["held-0", "family-3"])
    joined = replace(direction, families_used=frozenset({"elsewhere"})) + other
    assert joined.families_used >= {"elsewhere", "family-3"}


def test_a_vector_of_another_length_than_one_is_refused(planted: Any) -> None:
    direction, _ = two(planted)
    with pytest.raises(PersonaProbeError, match=r"has length (2|1\.99)"):
        replace(direction, unit=2 * direction.unit)
    with pytest.raises(PersonaProbeError, match="has length nan"):
        replace(direction, unit=direction.unit * math.nan)
