"""Directions of every label at once, and their validation on the families that are left."""

from typing import Any

import pytest

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import RequestError


def test_every_label_gets_directions_and_they_are_validated_on_the_rest(planted: Any) -> None:
    from persona_probe.directions.per_label import find_per_label, validate_on_the_rest

    activations = planted(gap=6.0).activations
    finder = FINDERS["mean_difference"]()
    found = find_per_label(activations, finder, "neutral")
    assert list(found) == ["hero"]
    used = next(iter(found["hero"].values())).families_used
    assert len(used) == 8
    options = {"permutations": 19, "relabellings": 9}
    [validation] = validate_on_the_rest(found, activations, **options)
    assert validation.rows[0].auroc.value > 0.8
    assert validation.rows[0].auroc.n_clusters == 8
    assert validation.rows[0].reliability is not None
    with pytest.raises(RequestError, match="every family of these activations"):
        validate_on_the_rest(found, activations.where(families=used))


def test_labels_that_are_not_there_are_refused(planted: Any) -> None:
    from persona_probe.directions.per_label import find_per_label

    activations = planted().activations
    finder = FINDERS["mean_difference"]()
    with pytest.raises(RequestError, match="no example is labelled 'villain'"):
        find_per_label(activations, finder, "neutral", ["villain"])
    with pytest.raises(RequestError, match="nothing to point to"):
        find_per_label(activations.where(labels=["neutral"]), finder, "neutral")


def test_a_direction_knows_how_many_examples_it_stands_on() -> None:
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.mean_difference import MeanDifference
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    labels = ["virtue"] * 3 + ["neutral"] * 5 + ["duty"] * 2
    values = torch.randn(10, 1, 4, generator=torch.Generator().manual_seed(0))
    names = [str(i) for i in range(10)]
    activations = ActivationSet.of(
        values, (Site(0),), "prompt_mean", names, labels, names, Provenance()
    )
    found = find_directions(activations, MeanDifference(), "virtue", "neutral")[Site(0)]
    assert (found.n_positive, found.n_negative) == (3, 5)
