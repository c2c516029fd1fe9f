"""What the sliders add together."""

from typing import Any

import pytest
import torch

from persona_probe.errors import DegenerateClassesError, RequestError, SiteMismatchError
from persona_probe.models.site import Site
from persona_probe.playground.setting import Question, Setting, intervention, mixture, units_of


def test_the_mixture_is_the_sum_of_what_the_sliders_say(session: Any) -> None:
    setting = Setting(1, {"virtue": 0.5, "service": -0.25})
    mixed = mixture(session.directions, setting)
    assert mixed is not None
    parts = [session.directions[p][Site(1)] for p in ("virtue", "service")]
    expected = 0.5 * parts[0].norm * parts[0].unit - 0.25 * parts[1].norm * parts[1].unit
    torch.testing.assert_close(mixed.raw, expected)
    assert mixed.site == Site(1)
    assert "0.5 norm of virtue + -0.25 norm of service" in (mixed.provenance.command or "")
    assert "last_prompt_token" in (mixed.provenance.command or "")


def test_sliders_at_zero_do_nothing_at_all(session: Any) -> None:
    for strengths in ({}, {"virtue": 0.0}, {"virtue": 0.0, "service": -0.0}):
        assert intervention(session.directions, Setting(1, strengths)) is None


def test_sliders_that_cancel_are_refused(session: Any, make_direction: Any) -> None:
    direction = make_direction(1, 3)
    both = {"a": {Site(1): direction}, "b": {Site(1): direction}}
    with pytest.raises(DegenerateClassesError, match="cancel"):
        mixture(both, Setting(1, {"a": 1.0, "b": -1.0}))


def test_units_fall_back_to_class_gaps(session: Any, make_direction: Any) -> None:
    from dataclasses import replace

    assert units_of(session.directions) == "norm"
    unmeasured = {"a": {Site(1): replace(make_direction(1, 3), norm=float("nan"))}}
    assert units_of(unmeasured) == "gap"
    mixed = mixture(unmeasured, Setting(1, {"a": -2.0}))
    assert mixed is not None
    torch.testing.assert_close(mixed.raw, -2.0 * unmeasured["a"][Site(1)].raw)


def test_a_session_refuses_directions_of_another_model(session: Any, make_direction: Any) -> None:
    from dataclasses import replace

    with pytest.raises(SiteMismatchError):
        replace(session, directions={"a": {Site(9): make_direction(9)}})


GOOD = {"layer": 1, "strengths": {"virtue": 0.5}, "positions": "both", "text": "Hi", "colour": "v"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "  "}, "say something"),
        ({"text": 4}, "'text' should be of type str, got 4"),
        ({"layer": "1"}, "'layer' should be of type int, got '1'"),
        ({"layer": True}, "'layer' should be of type int, got True"),
        ({"strengths": [1]}, "'strengths' should be of type dict"),
        ({"strengths": {"virtue": "much"}}, "'virtue' should be a finite number, got 'much'"),
        ({"strengths": {"virtue": float("inf")}}, "'virtue' should be a finite number, got inf"),
        ({"positions": "sometimes"}, "no schedule 'sometimes'"),
        ({"temperature": None}, "'temperature' should be a finite number"),
        ({"seed": 0.5}, "'seed' should be of type int"),
    ],
    ids=str,
)
def test_what_the_page_could_not_have_sent_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        Question.from_json(GOOD | change)
    assert said in str(caught.value)


@pytest.mark.parametrize("missing", ["layer", "strengths", "text", "colour"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(RequestError, match=f"the request has no '{missing}'"):
        Question.from_json({k: v for k, v in GOOD.items() if k != missing})
