"""Effects on constructed behaviour: identities, signs, pairing, and undefined denominators."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from persona_probe.study.sufficiency import Behaviour

N = 240
FAMILIES = [f"family-{i % 24}" for i in range(N)]
HARMFUL = np.arange(N) < N // 2
OPTIONS = {"resamples": 400, "seed": 0}


def behaviour(safe: float, refused: float, seed: int = 0) -> "Behaviour":
    """Random outcomes with these shares: safe on the first half, refused on the second."""
    rng = np.random.default_rng(seed)
    columns = np.full((N, 2), np.nan)
    columns[HARMFUL, 0] = rng.random(HARMFUL.sum()) < safe
    columns[~HARMFUL, 1] = rng.random((~HARMFUL).sum()) < refused
    return columns


@pytest.mark.parametrize("net", [False, True])
def test_steering_that_is_the_finetune_reproduces_1_and_that_does_nothing_0(net: bool) -> None:
    from persona_probe.study.sufficiency import effect_reproduced

    after, before = behaviour(0.9, 0.05), behaviour(0.1, 0.0, seed=1)
    whole = effect_reproduced(after, after, before, FAMILIES, net=net, **OPTIONS)
    nothing = effect_reproduced(before, after, before, FAMILIES, net=net, **OPTIONS)
    assert (whole.value, whole.low, whole.high) == pytest.approx((1, 1, 1))
    assert (nothing.value, nothing.low, nothing.high) == pytest.approx((0, 0, 0))


def test_refusing_everything_scores_on_y_and_not_on_j() -> None:
    from persona_probe.study.sufficiency import effect_reproduced

    after, before = behaviour(0.9, 0.0), behaviour(0.0, 0.0)
    blunt = behaviour(1.0, 1.0)
    assert effect_reproduced(blunt, after, before, FAMILIES, **OPTIONS).value > 1
    net = effect_reproduced(blunt, after, before, FAMILIES, net=True, **OPTIONS)
    assert net.value == pytest.approx(0)


def test_a_finetune_without_effect_leaves_the_ratio_undefined() -> None:
    from persona_probe.study.sufficiency import effect_reproduced

    same = behaviour(0.1, 0.0)
    found = effect_reproduced(behaviour(0.9, 0.0), same, same, FAMILIES, **OPTIONS)
    assert not found.defined
    assert "does not exclude 0" in str(found.reason)


def test_removing_everything_is_necessity_1_and_nothing_0() -> None:
    from persona_probe.study.necessity import effect_removed

    after, before = behaviour(0.9, 0.0), behaviour(0.1, 0.0, seed=1)
    assert effect_removed(before, after, before, FAMILIES, **OPTIONS).value == pytest.approx(1)
    assert effect_removed(after, after, before, FAMILIES, **OPTIONS).value == pytest.approx(0)


def test_equivalence_is_shown_for_a_copy_and_not_for_half_of_the_effect() -> None:
    from persona_probe.study.sufficiency import reproduction

    after, before = behaviour(0.9, 0.0), behaviour(0.0, 0.0)
    half = behaviour(0.45, 0.0, seed=2)
    assert reproduction(after, after, before, FAMILIES, 0.2, **OPTIONS).equivalent
    assert not reproduction(half, after, before, FAMILIES, 0.2, **OPTIONS).equivalent


def test_retention_compares_tiers_and_sees_a_steering_that_stops_at_the_trained_one() -> None:
    from persona_probe.study.projectability import retention, steered_retention

    near = HARMFUL & (np.arange(N) % 2 == 0)
    far = HARMFUL & (np.arange(N) % 2 == 1)
    before, after = behaviour(0.0, 0.0), behaviour(1.0, 0.0)
    local = after.copy()
    local[far, 0] = 0.0
    arguments = (near, far, FAMILIES)
    assert retention(after, before, *arguments, **OPTIONS).value == pytest.approx(1)
    assert retention(local, before, *arguments, **OPTIONS).value == pytest.approx(0)
    everywhere = steered_retention(after, after, before, *arguments, **OPTIONS)
    near_only = steered_retention(local, after, before, *arguments, **OPTIONS)
    assert (everywhere.value, near_only.value) == pytest.approx((1, 0))
