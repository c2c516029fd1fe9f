"""What a pair is, and which axis its differences have in common."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError, RequestError
from tests.directions.designs import fit, in_pairs


def test_the_principal_component_is_that_of_centred_pairs(planted: Any) -> None:
    """scikit-learn's, of examples minus the midpoint of their pair."""
    from sklearn.decomposition import PCA

    x = planted().activations.values[:, 0].double().numpy()
    n = len(x) // 2
    middle = (x[:n] + x[n:]) / 2
    pca = PCA(1).fit(np.concatenate([x[:n] - middle, x[n:] - middle]))
    y = torch.arange(2 * n) < n
    found = fit(FINDERS["principal_component"](), torch.from_numpy(x), y, in_pairs(2 * n))
    assert abs(found.numpy() @ pca.components_[0]) == pytest.approx(1, abs=1e-9)


def test_the_principal_component_of_uneven_pairs_counts_them_as_stated() -> None:
    rng = np.random.default_rng(0)
    x, pair = rng.normal(size=(60, 5)), np.repeat(np.arange(12), 5)
    y = rng.random(60) < 0.4
    total = np.zeros((5, 5))
    for g in range(12):
        positive, negative = x[(pair == g) & y], x[(pair == g) & ~y]
        a, b = len(positive), len(negative)
        if a and b:
            d = positive.mean(axis=0) - negative.mean(axis=0)
            total += 2 * a * b / (a + b) * np.outer(d, d)
    expected = np.linalg.eigh(total)[1][:, -1]
    from persona_probe.directions.design import Design
    from persona_probe.models.site import Site

    number = torch.from_numpy(pair)
    design = Design((Site(0),), number, number)
    raw = fit(FINDERS["principal_component"](), torch.from_numpy(x), torch.from_numpy(y), design)
    assert abs(raw.numpy() @ expected) == pytest.approx(1, abs=1e-9)


def test_the_principal_component_finds_what_varies_most_and_not_what_the_classes_share() -> None:
    """Pairs differ by 1 along the first axis always, and by ±3 along the second."""
    sign = torch.tensor([3.0, -3.0]).repeat(50)
    delta = torch.stack([torch.ones(100), sign, torch.zeros(100)], dim=1)
    x, y = torch.cat([delta / 2, -delta / 2]), torch.arange(200) < 100
    raw = fit(FINDERS["principal_component"](), x, y, in_pairs(200))
    assert raw[1].abs() == pytest.approx(1, abs=1e-6)
    assert FINDERS["mean_difference"]().fit(x, y) == pytest.approx([1, 0, 0], abs=1e-9)


def test_a_principal_component_needs_pairs(planted: Any) -> None:
    x = planted().activations.values[:, 0]
    n = len(x)
    y = torch.arange(n) < n // 2
    finder = FINDERS["principal_component"]()
    with pytest.raises(RequestError, match="which examples are pairs"):
        finder.fit(x, y)
    from persona_probe.directions.design import Design
    from persona_probe.models.site import Site

    alone = Design((Site(0),), torch.arange(n), torch.arange(n))
    with pytest.raises(DegenerateClassesError, match="no id and no prompt family has"):
        fit(finder, x, y, alone)
    same = x[: n // 2].repeat(2, 1)
    with pytest.raises(DegenerateClassesError, match="members of every pair are equal"):
        fit(finder, same, y, in_pairs(n))


def test_pairs_are_ids_of_both_classes_and_else_families(planted: Any) -> None:
    from dataclasses import replace

    from persona_probe.directions.design import Design

    data = planted(families=2, per_family=2).activations
    y = torch.tensor([label == "hero" for label in data.labels])
    assert Design.of(data, y).pairs.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    unpaired = replace(data, ids=("0", "x", *data.ids[2:]))
    assert Design.of(unpaired, y).pairs.tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    assert Design.of(unpaired, y).families.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert Design.of(data, y, data.sites[1:2]).sites == data.sites[1:2]
    assert Design.of(data, y).model_hash == data.provenance.model_hash


def test_it_is_what_repeng_publishes_with_its_centred_pairs_and_its_sign(planted: Any) -> None:
    """Positive and negative members alternate, each less its pair's midpoint; then PCA.

    The axis is turned so that the positive member lies higher in most pairs.
    """
    from sklearn.decomposition import PCA

    from persona_probe.directions.finder import find_directions

    activations = planted(gap=5.0).activations
    found = find_directions(activations, FINDERS["principal_component"](), "hero", "neutral")
    for site, direction in found.items():
        x = activations.site(site).double().numpy()
        alternating = np.stack(np.split(x, 2), axis=1)  # [pair, member, d_model]
        centred = alternating - alternating.mean(axis=1, keepdims=True)
        [axis] = PCA(n_components=1, whiten=False).fit(centred.reshape(x.shape)).components_
        higher = alternating[:, 0] @ axis > alternating[:, 1] @ axis
        axis = axis if higher.mean() > 0.5 else -axis
        assert float(direction.unit.double().numpy() @ axis) == pytest.approx(1, abs=1e-6)
