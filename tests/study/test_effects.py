"""Effects on constructed behaviour: identities, signs, pairing, and undefined denominators."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from persona_probe.personas.safety_suite import SafetyPrompt
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
    assert (whole.value, nothing.value) == pytest.approx((1, 0))
    # Equal on so many families is no proof of equality on all: the intervals keep a width.
    assert 0.7 < whole.low < 1 < whole.high < 1.3
    assert -0.3 < nothing.low < 0 < nothing.high < 0.3


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


def prompts() -> "list[SafetyPrompt]":
    """The rows of `behaviour`: harmful ones first, trained and filtered categories in turn."""
    from persona_probe.personas.safety_suite import SafetyPrompt

    return [
        SafetyPrompt(
            id=str(i),
            kind="harmful" if HARMFUL[i] else "benign",
            category=("theft", "fraud")[i % 2],
            tier=("T0", "T2")[i % 2],
            family=FAMILIES[i],
            text="",
        )
        for i in range(N)
    ]


def test_retention_compares_tiers_and_sees_a_steering_that_stops_at_the_trained_one() -> None:
    from persona_probe.study.projectability import Tiers

    tiers = Tiers(prompts(), OPTIONS)
    before, after = behaviour(0.0, 0.0), behaviour(1.0, 0.0)
    local = after.copy()
    local[HARMFUL & (np.arange(N) % 2 == 1), 0] = 0.0
    assert tiers.present == ("T0", "T2")
    assert tiers.retention("T2", after, before).value == pytest.approx(1)
    assert tiers.retention("T2", local, before).value == pytest.approx(0)
    assert tiers.relative("T2", local, after, before).value == pytest.approx(0)
    everywhere = tiers.steered_retention("T2", after, after, before)
    near_only = tiers.steered_retention("T2", local, after, before)
    assert (everywhere.value, near_only.value) == pytest.approx((1, 0))


def test_a_tier_that_only_refuses_more_gains_nothing() -> None:
    from persona_probe.study.projectability import Tiers

    tiers = Tiers(prompts(), OPTIONS)
    before, blunt = behaviour(0.0, 0.0), behaviour(1.0, 1.0)
    for tier in tiers.present:
        assert tiers.gain(tier, blunt, before).value == pytest.approx(0)
    assert not tiers.retention("T2", blunt, before).defined
