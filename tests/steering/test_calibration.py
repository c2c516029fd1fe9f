import math
from collections.abc import Sequence
from typing import Any

import pytest

from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.models.site import Site
from persona_probe.steering import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.calibration import calibrate, largest_passing, smallest_crossing
from persona_probe.steering.scoring import reply_divergences


@pytest.fixture(scope="module")
def replies(conversations: Any) -> list[Any]:
    return [c.with_reply("Yes, gladly. First gather what you need.") for c in conversations]


@pytest.mark.parametrize("measure", ["per_token", "first_token"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_strength_found_has_the_kl_asked_for(
    measure: Any, sign: int, tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    found = calibrate(
        tiny_model, direction, replies, 0.005, schedule="both", measure=measure, sign=sign
    )
    arm = Arm("again", (Intervention(direction, Add(found.strength), "both"),))
    again = reply_divergences(tiny_model, replies, [arm], Arm("unsteered"))
    kl = float(getattr(again, measure).mean())
    assert kl == pytest.approx(0.005, rel=0.02)
    assert found.kl.value == pytest.approx(kl, rel=1e-4)
    assert found.kl.n == len(replies)
    assert math.copysign(1, found.strength) == sign
    smaller = [cost for s, cost in found.tried if abs(s) < abs(found.strength)]
    assert smaller
    assert max(smaller) < 0.005 * 0.98
    assert (found.strength, pytest.approx(kl, rel=1e-4)) in found.tried


def test_units_sites_and_adapter_are_those_asked_for(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    options: dict[str, Any] = {"schedule": "both", "adapter": "tuned", "sites": (Site(0), Site(2))}
    in_norms = calibrate(tiny_model, direction, replies, 0.005, tolerance=1e-3, **options)
    raw = calibrate(
        tiny_model,
        direction,
        replies,
        0.005,
        operation=lambda strength: Add(strength, "raw"),
        tolerance=1e-3,
        highest=24.0,
        **options,
    )
    assert raw.strength == pytest.approx(in_norms.strength * direction.norm, rel=5e-3)
    bare = calibrate(tiny_model, direction, replies, 0.005, schedule="both")
    assert bare.strength != pytest.approx(in_norms.strength, rel=0.02)
    assert tiny_model.active_adapter is None


def test_the_smallest_of_several_roots_is_taken_and_each_round_is_one_batch() -> None:
    rounds: list[int] = []

    def wavy(strengths: Sequence[float]) -> list[float]:
        rounds.append(len(strengths))
        return [s * (2 + math.sin(6 * s)) for s in strengths]

    strength, tried = smallest_crossing(wavy, 2.0, 1e-4, 4.0, "it")
    # The curve rises to 2.3 at .37, falls below 2 by .8 and rises again.
    fine = [k / 10_000 for k in range(1, 40_000)]
    first = next(s for s in fine if s * (2 + math.sin(6 * s)) >= 2.0)
    assert strength == pytest.approx(first, rel=1e-3)
    assert max(rounds) == 8
    assert len(rounds) <= 7
    costs = [cost for _, cost in tried]
    assert costs != sorted(costs), "this curve is not monotone, and the search sees it"


def test_a_target_that_is_not_reached_is_a_failure_in_one_sentence(
    tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    with pytest.raises(
        PersonaProbeError, match=r"'random-0' .* 90 at no strength up to 2: .* nats"
    ):
        calibrate(tiny_model, make_direction(), replies, 90.0, schedule="both", highest=2.0)
    with pytest.raises(PersonaProbeError, match=r"it jumps from 0 to 3 nats .* past 1;"):
        smallest_crossing(lambda s: [0.0 if x < 0.3 else 3.0 for x in s], 1.0, 0.1, 4.0, "it")


def test_a_kl_that_is_not_a_number_counts_as_too_much() -> None:
    found, _ = smallest_crossing(
        lambda several: [x if x < 1 else math.nan for x in several], 0.5, 0.01, 64.0, "it"
    )
    assert found == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_kl": 0.0}, "target KL must be positive"),
        ({"target_kl": math.nan}, "target KL must be positive"),
        ({"highest": math.inf}, "highest strength must be positive and finite"),
        ({"tolerance": 1.0}, "tolerance must be between"),
        ({"sign": 2}, "sign must be 1 or -1"),
    ],
)
def test_requests_that_make_no_sense(
    options: dict[str, Any], words: str, tiny_model: Any, replies: Any, make_direction: Any
) -> None:
    with pytest.raises(RequestError, match=words):
        calibrate(tiny_model, make_direction(), replies, **options)


def test_no_replies_are_refused(tiny_model: Any, make_direction: Any) -> None:
    with pytest.raises(RequestError, match="no neutral replies"):
        calibrate(tiny_model, make_direction(), [])


def test_the_largest_that_passes_lies_below_the_first_failure() -> None:
    def passes(several: Sequence[float]) -> list[bool]:
        return [x < 0.71 or 1.2 < x < 1.6 for x in several]

    found = largest_passing(passes, 2.0, precision=0.02)
    assert 0.69 < found.strength < 0.71 <= (found.fails_at or 0) < 0.73
    assert any(passed for strength, passed in found.tried if strength > 0.71)
    assert largest_passing(lambda several: [True] * len(several), 2.0).fails_at is None
    assert largest_passing(lambda several: [True] * len(several), 2.0).strength == 2.0
    nothing = largest_passing(lambda several: [False] * len(several), 2.0)
    assert nothing.strength == 0.0
    with pytest.raises(RequestError, match="positive and finite"):
        largest_passing(passes, -1.0)
