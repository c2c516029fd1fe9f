"""Loud coordinates: found, left out, and not taken for the direction."""

from typing import Any

import pytest
import torch

from persona_probe.directions.finders import finder_named


def loud(activations: Any, coordinate: int = 5, factor: float = 60.0) -> Any:
    values = activations.values.clone()
    values[:, :, coordinate] = factor * torch.randn(
        values.shape[:2], generator=torch.Generator().manual_seed(len(activations))
    )
    return activations.with_values(values)


def without(activations: Any, finder: str = "mean_difference") -> Any:
    from persona_probe.directions.checks.labelled import Labelled
    from persona_probe.directions.checks.outliers import quietened

    return quietened(Labelled.of(activations, "hero", "neutral"), finder_named(finder))


def test_the_loud_coordinate_is_named_and_left_out(planted: Any) -> None:
    data = planted(gap=6.0)
    variants = without(loud(data.activations))
    assert variants.coordinates == [(5,)] * 3
    assert (variants.masked[:, 5] == 0).all()
    truth = data.truth.double().clone()
    truth[:, 5] = 0
    truth /= truth.norm(dim=1, keepdim=True)
    assert ((variants.masked * truth).sum(dim=1) > 0.95).all()
    # Standardised, the loud coordinate weighs as little as it tells.
    assert (variants.standardised[:, 5].abs() < 0.02).all()
    assert ((variants.standardised * truth).sum(dim=1) > 0.9).all()


def test_without_loud_coordinates_both_variants_are_nearly_the_direction(planted: Any) -> None:
    from persona_probe.directions.finder import find_directions

    data = planted(gap=6.0).activations
    variants = without(data)
    found = find_directions(data, finder_named("mean_difference"), "hero", "neutral")
    plain = torch.stack([direction.unit.double() for direction in found.values()])
    assert all(len(coordinates) == 1 for coordinates in variants.coordinates)
    assert ((variants.masked * plain).sum(dim=1) > 0.8).all()
    assert ((variants.standardised * plain).sum(dim=1) > 0.95).all()


def test_the_standardised_mean_difference_by_hand(planted: Any) -> None:
    data = planted(sites=(0,)).activations
    x = data.values[:, 0].double()
    n = len(x) // 2
    expected = (x[:n].mean(dim=0) - x[n:].mean(dim=0)) / x.std(dim=0) ** 2
    found = without(data).standardised[0]
    assert torch.cosine_similarity(found, expected, dim=0) == pytest.approx(1)


def test_validation_shows_what_the_loud_coordinate_hid(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    found_on = loud(planted(0, gap=6.0).activations)
    held_out = loud(planted(1, gap=6.0, prefix="held").activations)
    found = find_directions(found_on, finder_named("mean_difference"), "hero", "neutral")
    for row in validate(found, held_out, found_on, relabellings=9).rows:
        assert row.outlier_flag
        assert "drowned" in row.flags
        quiet = row.without_outliers
        assert quiet is not None
        assert quiet.coordinates == (5,)
        assert quiet.masked.value > row.auroc.value + 0.05
        assert quiet.standardised.value > row.auroc.value + 0.05
        assert quiet.masked_cosine < 0.97
        assert quiet.masked.n == row.auroc.n


def test_a_direction_that_is_one_loud_coordinate_is_owned_by_it(planted: Any) -> None:
    """Here the loud coordinate tells the classes apart, and nothing else does."""
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    def told_by_one(seed: int, prefix: str) -> Any:
        data = planted(seed, gap=0.0, prefix=prefix, sites=(0,)).activations
        values = data.values.clone()
        values[..., 5] *= 20.0
        values[..., 5] += 200.0 * torch.tensor([[name == "hero"] for name in data.labels])
        return data.with_values(values)

    found_on, held_out = told_by_one(0, "family"), told_by_one(1, "held")
    found = find_directions(found_on, finder_named("mean_difference"), "hero", "neutral")
    [row] = validate(found, held_out, found_on, relabellings=9).rows
    assert row.auroc.low > 0.9
    assert row.owned_by_outliers
    assert "loud coordinate" in row.flags
    assert row.to_json()["owned_by_outliers"]
    [unknown] = validate(found, held_out).rows  # nobody looked without it
    assert "loud coordinate" in unknown.flags


def test_a_dead_coordinate_breaks_nothing(planted: Any) -> None:
    data = planted().activations
    values = data.values.clone()
    values[:, :, 3] = 1.0
    variants = without(data.with_values(values))
    assert torch.isfinite(variants.standardised).all()
    assert (variants.standardised[:, 3] == 0).all()
