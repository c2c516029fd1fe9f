"""Reliability: what it is in theory, and in data where the truth is known."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError


def rows(activations: Any, finder: str = "mean_difference", **options: Any) -> list[Any]:
    from persona_probe.directions.checks.reliability import reliability

    return list(reliability(activations, FINDERS[finder](), "hero", "neutral", **options).values())


def test_spearman_brown_predicts_the_cosine_of_two_independent_samples(planted: Any) -> None:
    """Width 64, gap 1: noisy enough that the prediction could be wrong."""
    from persona_probe.directions.finder import find_directions

    options = {"d_model": 64, "gap": 1.0, "families": 24}
    predicted, actual = [], []
    for seed in range(6):
        one, other = planted(seed, **options), planted(seed + 100, **options)
        predicted += [row.spearman_brown for row in rows(one.activations)]
        found = [
            find_directions(data.activations, FINDERS["mean_difference"](), "hero", "neutral")
            for data in (one, other)
        ]
        actual += [found[0][site].cosine(found[1][site]) for site in found[0]]
    assert 0.3 < np.mean(actual) < 0.9
    assert np.mean(predicted) == pytest.approx(np.mean(actual), abs=0.06)


@pytest.mark.parametrize("name", FINDERS)
def test_more_signal_is_more_reliable(name: str, planted: Any) -> None:
    weak = rows(planted(gap=0.5).activations, name, halvings=5, resamples=20)
    strong = rows(planted(gap=6.0).activations, name, halvings=5, resamples=20)
    for faint, clear in zip(weak, strong, strict=True):
        assert clear.split_half.value > faint.split_half.value + 0.1
        assert clear.cone > faint.cone
        assert clear.consistency.value > faint.consistency.value
    assert strong[0].split_half.n == 5


def test_labels_without_meaning_have_no_reliability(planted: Any) -> None:
    null = rows(planted(gap=0.0, d_model=128).activations)
    for row in null:
        assert abs(row.split_half.value) < 0.2
        assert abs(row.pairwise_cosine) < 0.05


def test_consistency_and_pairwise_cosine_by_brute_force(planted: Any) -> None:
    activations = planted(sites=(0,)).activations
    n = len(activations) // 2
    order = torch.randperm(2 * n, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = activations.take(order)
    x = activations.values[:, 0].double()
    delta = x[:n] - x[n:]
    alike = torch.nn.functional.normalize(delta, dim=1)
    names = np.array(activations.families[:n])
    apart = torch.from_numpy(names[:, None] != names)
    across = float((alike @ alike.T)[apart].mean())
    length = float((delta @ delta.T)[apart].mean().sqrt())
    for data in (activations, shuffled):
        row = rows(data)[0]
        expected = length / float(delta.norm(dim=1).mean())
        assert row.consistency.value == pytest.approx(expected)
        assert row.consistency.low < expected < row.consistency.high
        assert row.pairwise_cosine == pytest.approx(across)


# The principal component of pair differences needs pairs.
UNPAIRED = [name for name in FINDERS if name != "principal_component"]


def one_class_per_family(planted: Any) -> Any:
    data = planted(families=12, gap=10.0).activations
    keep = [i for i in range(len(data)) if (int(data.families[i][7:]) % 2 == 0) == (i < 96)]
    return data.take(keep)


def test_a_finder_that_needs_pairs_says_so(planted: Any) -> None:
    with pytest.raises(DegenerateClassesError, match="no pairs"):
        rows(one_class_per_family(planted), "principal_component")


@pytest.mark.parametrize("name", UNPAIRED)
def test_unpaired_families_of_one_class_each_can_be_halved(name: str, planted: Any) -> None:
    one_class_each = one_class_per_family(planted)
    row = rows(one_class_each, name, halvings=5, resamples=20)[0]
    assert row.split_half.value > 0.3
    assert row.split_half.n == 5
    assert row.consistency.reason == "the examples are not in pairs"
    assert np.isnan(row.pairwise_cosine)


def test_every_number_has_its_control_beside_it(planted: Any) -> None:
    """Shuffled labels are no more alike than chance, and flipped differences do not add up."""
    for row in rows(planted(gap=5.0, d_model=128).activations):
        assert row.split_half.value > 0.3
        assert row.split_half_null.value == pytest.approx(0, abs=0.1)
        assert row.consistency.low > row.consistency_null.high
        # Of n random vectors half of the sums are shorter than their noise, and the others little
        # longer: all of it below the mean's own noise, 1 / sqrt(n).
        assert 0 < row.consistency_null.value < row.consistency_null.high < 1 / np.sqrt(128)
        assert row.pairwise.low < row.pairwise_cosine < row.pairwise.high
        assert row.pairwise.excludes(0.0)
        assert row.cone_cosine.low <= row.cone <= row.cone_cosine.value
        assert (row.n, row.n_units, row.pairwise.n) == (256, 16, 128)


def test_shuffles_within_halves_leave_no_mirror_image(planted: Any) -> None:
    """Balanced over both halves together, the halves would be opposite where prompts differ."""
    strong = rows(planted(gap=20.0, spread=0.1, d_model=64).activations, halvings=50)
    for row in strong:
        assert row.split_half_null.value == pytest.approx(0, abs=0.12)


def test_few_families_are_halved_by_pairs(planted: Any) -> None:
    row = rows(planted(families=2, per_family=40).activations)[0]
    assert row.split_half.value > 0.5


def test_a_single_pair_has_no_reliability_and_says_so(planted: Any) -> None:
    row = rows(planted(families=1, per_family=1).activations)[0]
    assert not row.split_half.defined
    assert np.isnan(row.spearman_brown)
    assert row.to_json()["spearman_brown"] is None


def test_noise_correction_restores_the_cosine_of_the_truths(planted: Any) -> None:
    from persona_probe.directions.checks.reliability import noise_corrected
    from persona_probe.directions.finder import find_directions

    options = {"d_model": 64, "gap": 1.0, "families": 24}
    raw, corrected = [], []
    for seed in range(8):
        # The same truth under independent noise: the cosine without noise is 1.
        data = [planted(seed + shift, **options).activations for shift in (0, 50)]
        trust = [[row.spearman_brown for row in rows(d)] for d in data]
        found = [
            list(find_directions(d, FINDERS["mean_difference"](), "hero", "neutral").values())
            for d in data
        ]
        for i in range(3):
            cosine = found[0][i].cosine(found[1][i])
            raw.append(cosine)
            corrected.append(noise_corrected(cosine, trust[0][i], trust[1][i]))
    assert np.mean(raw) < 0.85
    assert np.mean(corrected) == pytest.approx(1.0, abs=0.08)
    assert np.isnan(noise_corrected(0.5, 0.0, 0.9))
