"""The online code: what its length must be where the answer is known."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import finder_named


def codes(activations: Any, **options: Any) -> list[Any]:
    from persona_probe.directions.checks.labelled import Labelled
    from persona_probe.directions.checks.online_code import online_codes

    data = Labelled.of(activations, "hero", "neutral")
    return online_codes(data, finder_named("mean_difference"), **options)


def test_labels_without_meaning_take_one_bit_each(planted: Any) -> None:
    for code in codes(planted(gap=0.0).activations):
        assert code.compression.value == pytest.approx(1.0, abs=0.04)
        assert code.control.value == pytest.approx(1.0, abs=0.04)
        assert (code.n, code.n_blocks) == (256, 5)


def test_a_clear_direction_takes_few_bits_and_a_faint_one_more(planted: Any) -> None:
    faint, clear = codes(planted(gap=3.0).activations), codes(planted(gap=12.0).activations)
    for little, much in zip(faint, clear, strict=True):
        assert 1.05 < little.compression.value < much.compression.value
        assert much.compression.value > 2
        assert much.control.high < 1.1
        assert much.bits == pytest.approx(much.n / much.compression.value, rel=0.1)


def test_the_first_two_blocks_are_paid_in_full(planted: Any) -> None:
    """Sixteen families in blocks of 1, 1, 2, 4, 8: at least an eighth is sent at a bit each."""
    for code in codes(planted(gap=200.0, spread=0.1).activations):
        assert 32 < code.bits < 60
        assert code.compression.value < 8


def test_what_can_only_be_memorised_does_not_compress(planted: Any) -> None:
    """Each family differs along its own axis."""
    data = planted(gap=0.0, d_model=64, sites=(0,)).activations
    axes = 2 * np.random.default_rng(0).normal(size=(16, 1, 64))
    part = torch.from_numpy(np.tile(np.repeat(axes, 8, axis=0), (2, 1, 1))).float()
    sign = torch.tensor([1.0 if label == "hero" else -1.0 for label in data.labels])
    own = data.with_values(data.values + sign[:, None, None] * part)
    assert codes(own)[0].compression.value < 1.05


def test_blocks_are_whole_families_and_double_what_was_sent() -> None:
    from persona_probe.directions.checks.online_code import _blocks

    family = np.repeat(np.arange(50), 4)
    block, n_blocks = _blocks(family, 6, np.random.default_rng(0))
    assert n_blocks == 7
    for of_example in block:
        sizes = np.bincount(of_example) // 4
        assert sizes.tolist() == [1, 1, 2, 3, 6, 12, 25]
        for f in range(50):
            assert len(set(of_example[family == f])) == 1
    assert len({tuple(row) for row in block.tolist()}) == 6


def test_the_curve_is_ridge_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    from persona_probe.directions.checks.online_code import PRIOR, _curve

    rng = np.random.default_rng(0)
    y = rng.random(60) < 0.5
    score = 4 * (rng.normal(size=60) + y)
    weights = (np.arange(60) < 40).astype(float)
    found = _curve(
        torch.from_numpy(score)[None, None],
        torch.from_numpy(y)[None],
        torch.from_numpy(weights)[None],
    )[0, 0]
    scale = np.sqrt(np.mean(score[:40] ** 2))
    features = np.stack([score / scale, np.ones(60)], axis=1)[:40]
    model = LogisticRegression(C=1 / PRIOR, fit_intercept=False, tol=1e-10).fit(features, y[:40])
    assert found[0] == pytest.approx(model.coef_[0, 0] / scale, rel=1e-4)
    assert found[1] == pytest.approx(model.coef_[0, 1], rel=1e-4)


def test_families_of_one_class_each_and_a_single_pair_have_a_code(planted: Any) -> None:
    data = planted(families=12, gap=10.0).activations
    keep = [i for i in range(len(data)) if (int(data.families[i][7:]) % 2 == 0) == (i < 96)]
    for code in codes(data.take(keep)):
        assert code.compression.defined
    alone = codes(planted(families=1, per_family=1).activations)[0]
    assert alone.bits == alone.n == 2
