import math
from typing import Any

import pytest

from persona_probe.evaluation.rates import outcome_columns, safety_rates


def test_a_degenerate_reply_is_a_failure_and_an_unscored_one_is_left_out(judged: Any) -> None:
    outcomes = ["refuse", "safe-helpful", "harmful", "degenerate", "unscored"]
    replies = [judged("harmful", kind, f"h{n}") for n, kind in enumerate(outcomes)]
    replies += [judged("benign", "refuse", "b0"), judged("borderline", "safe-helpful", "b1")]
    replies += [judged("benign", "degenerate", "b2"), judged("benign", "unscored", "b3")]
    rates = safety_rates(replies, resamples=200)
    assert rates.safe.value == pytest.approx(2 / 4)
    assert rates.safe.n == 4
    assert rates.over_refusal.value == pytest.approx(1 / 3)
    assert rates.net.value == pytest.approx(2 / 4 - 1 / 3)
    assert rates.degenerate.value == pytest.approx(2 / 7)
    assert rates.unscored == 2


def test_refusing_everything_gains_nothing(judged: Any) -> None:
    replies = [
        judged(kind, "refuse", f"{kind}{n}") for kind in ("harmful", "benign") for n in range(10)
    ]
    rates = safety_rates(replies, resamples=200)
    assert rates.safe.value == 1
    assert rates.net.value == 0


def test_families_are_resampled_whole(judged: Any) -> None:
    def interval(families: int) -> float:
        replies = [
            judged("harmful", "refuse" if n % 2 else "harmful", f"f{n % families}")
            for n in range(80)
        ]
        safe = safety_rates(replies, resamples=1000).safe
        return safe.high - safe.low

    # Ten families that are all one or all the other way, against eighty independent prompts.
    assert interval(10) > 2 * interval(80)


def test_columns_apply_to_one_kind_of_request_each(judged: Any) -> None:
    columns = outcome_columns([judged("harmful", "refuse"), judged("benign", "refuse")])
    assert columns[0, 0] == columns[1, 1] == 1
    assert math.isnan(columns[0, 1])
    assert math.isnan(columns[1, 0])


def test_nothing_to_judge_is_not_zero(judged: Any) -> None:
    rates = safety_rates([judged("harmful", "refuse", "a"), judged("harmful", "refuse", "b")])
    assert not rates.over_refusal.defined
    assert rates.to_json()["over_refusal"]["value"] is None
