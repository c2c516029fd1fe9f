import dataclasses
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.steering import Ablate, Add, Clamp, Rotate, Subspace
from persona_probe.steering.arm import Intervention
from persona_probe.steering.condition import Condition, condition_named
from persona_probe.steering.schedule import SCHEDULES, SHAPES, matching_schedule, schedule_named

# A row padded on the left, one on the right and a decoding step seen as part of a full row.
POSITIONS = torch.tensor([[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, -1, -1]])
LENGTHS = torch.tensor([[3], [2]])
EXPECTED = {
    "prompt": [[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]],
    "last_prompt_token": [[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]],
    "response": [[0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]],
    "both": [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]],
}


def test_every_schedule_is_covered() -> None:
    assert set(EXPECTED) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_names_positions_of_the_sequence(name: str) -> None:
    assert SCHEDULES[name](POSITIONS, LENGTHS).int().tolist() == EXPECTED[name]
    assert schedule_named(name)(POSITIONS, LENGTHS).tolist() == EXPECTED[name]
    assert not schedule_named(name).fades


def test_a_direction_acts_where_it_was_read() -> None:
    assert matching_schedule("last_prompt_token") == "last_prompt_token"
    assert matching_schedule("response_mean") == "response"
    assert matching_schedule("prompt_mean") == "prompt"
    with pytest.raises(RequestError, match="choose one of prompt"):
        matching_schedule("somewhere")


def test_an_unknown_schedule_lists_the_choices() -> None:
    with pytest.raises(RequestError, match="last_prompt_token"):
        schedule_named("always")
    for wrong in ("first", "every:3", "reply/first:3", "prompt/first", ""):
        with pytest.raises(RequestError, match=r"no schedule .*; choose one of prompt, "):
            schedule_named(wrong)


# A prompt of two tokens and a reply of five, of which the first row has all in one pass; the
# second row is one decoding step, at the same place in its sequence as the first one's token 3.
LONG = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [-1, -1, -1, -1, -1, -1, 5]])
TWO = torch.tensor([[2], [2]])
SHAPED = {
    "first:2": [0, 0, 1, 1, 0, 0, 0],
    "from:2": [0, 0, 0, 0, 1, 1, 1],
    "linear:4": [0, 0, 1, 0.75, 0.5, 0.25, 0],
    "exponential:1": [0, 0, 1, 0.5, 0.25, 0.125, 0.0625],
    "exponential:0.5": [0, 0, 1, 0.25, 0.0625, 0.015625, 0.00390625],
    "response/first:1": [0, 0, 1, 0, 0, 0, 0],
    "prompt/first:1": [1, 0, 0, 0, 0, 0, 0],
    "prompt/from:1": [0, 1, 0, 0, 0, 0, 0],
    "both/first:3": [1, 1, 1, 0, 0, 0, 0],
    "both/linear:4": [1, 0.75, 0.5, 0.25, 0, 0, 0],
}


def test_every_shape_is_covered() -> None:
    assert {name.split("/")[-1].split(":")[0] for name in SHAPED} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPED)
def test_a_shape_counts_tokens_from_the_beginning_of_its_span(name: str) -> None:
    weights = schedule_named(name)(LONG, TWO)
    assert weights[0].tolist() == SHAPED[name]
    assert weights[1].tolist() == [0, 0, 0, 0, 0, 0, SHAPED[name][5]]
    assert schedule_named(name).fades == any(0 < w < 1 for w in SHAPED[name])
    assert schedule_named(name).spares_the_prompt == (not any(SHAPED[name][:2]))


def test_first_and_from_are_the_whole() -> None:
    parts = [schedule_named(f"{kind}:3")(LONG, TWO) for kind in ("first", "from")]
    assert torch.equal(sum(parts), schedule_named("response")(LONG, TWO))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("first:0", "'first:0': K is a number of tokens, 1 or more"),
        ("from:-1", "1 or more"),
        ("linear:2.5", "1 or more"),
        ("first:", "1 or more"),
        ("exponential:0", "half-life H is a positive number"),
        ("exponential:nan", "half-life"),
        ("exponential:inf", "half-life"),
        ("exponential:soon", "half-life"),
        ("last_prompt_token/first:1", "one token"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        schedule_named(name)


@pytest.mark.parametrize("operation", [Ablate(), Clamp(-1.0, 1.0), Subspace()])
def test_what_has_no_strength_cannot_fade(operation: Any, make_direction: Any) -> None:
    name = type(operation).__name__
    for schedule in ("linear:3", "both/exponential:4"):
        with pytest.raises(RequestError, match=f"{name} has no strength to weaken"):
            Intervention(make_direction(), operation, schedule)
        for fading in (Add(1.0), Rotate(10.0)):
            assert Intervention(make_direction(), fading, schedule).when == schedule
    assert Intervention(make_direction(), operation, "first:3").when == "first:3"


def test_an_intervention_cannot_wait_for_what_is_read_later(make_direction: Any) -> None:
    later = Condition(make_direction(layer=2))
    with pytest.raises(RequestError, match=r"at layer 1 cannot wait .* at layer 2"):
        Intervention(make_direction(layer=1), Add(1.0), "both", None, later)
    same = Intervention(make_direction(layer=2), Add(1.0), "both", None, later)
    assert same.touched == same.where


def test_a_condition_says_where_its_threshold_is(make_direction: Any) -> None:
    direction = dataclasses.replace(make_direction(), midpoint=2.0)
    assert Condition(direction, 0.5).limit == 2.0 + 0.5 * direction.gap
    assert Condition(direction, 0.5, units="raw").limit == 0.5
    nowhere = dataclasses.replace(direction, midpoint=float("nan"))
    for wrong, words in [
        ({"direction": nowhere}, "raw units"),
        ({"direction": direction, "threshold": float("nan")}, "must be a number"),
    ]:
        with pytest.raises(RequestError, match=words):
            Condition(**wrong)


def test_a_condition_is_read_as_it_is_written(make_direction: Any) -> None:
    direction = make_direction(layer=1)
    known = {"virtue": {direction.site: direction}}
    assert condition_named("virtue:1:0.5", known).limit == 0.5 * direction.gap
    found = condition_named("virtue:1:-.5:prompt_mean:raw", known)
    assert (found.limit, found.at) == (-0.5, "prompt_mean")
    assert condition_named("virtue:1:-inf:raw", known).limit == -float("inf")
    for wrong, words in [
        ("virtue:1", "PERSONA:LAYER:THRESHOLD"),
        ("virtue:1:nan", "PERSONA:LAYER:THRESHOLD"),
        ("virtue:1:0.5:somewhere", "PERSONA:LAYER:THRESHOLD"),
        ("vice:1:0.5", "no direction of 'vice'"),
        ("virtue:2:0.5", "no direction of 'virtue' at layer 2"),
    ]:
        with pytest.raises(RequestError, match=words):
            condition_named(wrong, known)
