"""A judge behind HTTP, against a real server on loopback that fails in every way."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from persona_probe.evaluation.endpoint_judge import KEY, EndpointJudge
from persona_probe.evaluation.judge import Case
from tests.evaluation.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture
def cases(prompts: Any) -> list[Case]:
    replies = [f"I decline, number {i}." if i % 2 else f"Sure, number {i}." for i in range(12)]
    return [Case(prompts["harmful"], reply) for reply in replies]


@pytest.fixture
def judge(endpoint: Endpoint) -> Callable[..., EndpointJudge]:
    def make(**options: Any) -> EndpointJudge:
        settings: dict[str, Any] = {"pause": 0.01, "timeout": 0.5, "concurrency": 3} | options
        return EndpointJudge.at(endpoint.url, "grader", **settings)

    return make


EXPECTED = ["harmful", "refuse"] * 6


def kinds(judge: EndpointJudge, cases: list[Case]) -> list[str]:
    return [outcome.kind for outcome in judge.outcomes(cases)]


def test_verdicts_come_back_in_order_and_the_arm_is_never_sent(
    judge: Any, endpoint: Endpoint, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "secret")
    assert kinds(judge(), cases) == EXPECTED
    assert len(endpoint.requests) == len(cases)
    assert {body["model"] for body in endpoint.requests} == {"grader"}
    assert {h["Authorization"] for h in endpoint.headers} == {"Bearer secret"}
    assert "secret" not in judge().identity


@pytest.mark.parametrize("mood", ["slow", "nonsense", "broken", "overloaded", "hang up"])
def test_a_passing_failure_costs_retries_and_nothing_else(
    mood: str, judge: Any, endpoint: Endpoint, cases: list[Case]
) -> None:
    endpoint.moods += [mood, mood]
    assert kinds(judge(), cases) == EXPECTED
    assert len(endpoint.requests) == len(cases) + 2


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("slow", "no answer within 0.5 s"),
        ("nonsense", "no verdict in the answer 'I would rather"),
        ("broken", "status 500"),
        ("hang up", "RemoteProtocolError"),
    ],
)
def test_a_lasting_failure_leaves_that_reply_unscored(
    mood: str, reason: str, judge: Any, endpoint: Endpoint, cases: list[Case]
) -> None:
    endpoint.moods += [mood] * 4
    outcomes = judge(concurrency=1).outcomes(cases)
    assert [o.kind for o in outcomes] == ["unscored", *EXPECTED[1:]]
    assert reason in outcomes[0].reason


def test_what_cannot_get_better_is_not_tried_again(
    judge: Any, endpoint: Endpoint, cases: list[Case]
) -> None:
    endpoint.moods += ["forbidden"]
    outcomes = judge(concurrency=1).outcomes(cases)
    assert "status 401" in outcomes[0].reason
    assert [o.kind for o in outcomes] == ["unscored", *EXPECTED[1:]]
    assert len(endpoint.requests) == len(cases)


def test_an_endpoint_that_dies_halfway_leaves_the_rest_unscored_soon(
    judge: Any, endpoint: Endpoint, cases: list[Case]
) -> None:
    endpoint.moods += ["fine"] * 6 + ["dead"]
    outcomes = judge(concurrency=1, give_up_after=2).outcomes(cases)
    assert [o.kind for o in outcomes] == EXPECTED[:6] + ["unscored"] * 6
    # Two replies use up their four attempts, the other four are not sent at all.
    assert len(endpoint.requests) == 6 + 2 * 4
    assert "stopped answering" in outcomes[-1].reason


def test_nonsense_is_no_death(judge: Any, endpoint: Endpoint, cases: list[Case]) -> None:
    endpoint.moods += ["nonsense"] * 4 * 3
    outcomes = judge(concurrency=1, give_up_after=1).outcomes(cases)
    assert [o.kind for o in outcomes] == ["unscored"] * 3 + EXPECTED[3:]


def test_nobody_there_is_no_traceback(cases: list[Case]) -> None:
    judge = EndpointJudge.at(
        "http://127.0.0.1:9", "grader", pause=0.0, timeout=1.0, give_up_after=1
    )
    outcomes = judge.outcomes(cases)
    assert {outcome.kind for outcome in outcomes} == {"unscored"}
    assert any("ConnectError" in outcome.reason for outcome in outcomes)


def test_pauses_grow_and_an_endpoint_may_ask_for_its_own(cases: list[Case]) -> None:
    answers = iter([500, 500, 429])
    slept: list[float] = []

    def handle(_request: httpx.Request) -> httpx.Response:
        status = next(answers, 401)
        return httpx.Response(status, headers={"Retry-After": "7"} if status == 429 else {})

    judge = EndpointJudge.at(
        "http://judge", "grader", transport=httpx.MockTransport(handle), sleep=slept.append
    )
    judge.outcomes(cases[:1])
    assert 0.5 <= slept[0] <= 1.5
    assert 1 <= slept[1] <= 3
    assert slept[2] == 7


def test_a_verdict_may_follow_thoughts(cases: list[Case]) -> None:
    said = 'Let me see {that}. {"outcome": "odd"} So: {"outcome": "Safe-Helpful", "reason": "r"} .'
    answer = {"choices": [{"message": {"content": said}}]}
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=answer))
    (outcome,) = EndpointJudge.at("http://judge", "grader", transport=transport).outcomes(cases[:1])
    assert (outcome.kind, outcome.reason) == ("safe-helpful", "the judge says: r")
