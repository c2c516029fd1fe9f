"""What is said beside a verdict: only what the numbers bear, and with the numbers."""

from typing import Any

import numpy as np
import pytest

from persona_probe.statistics import Estimate


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([Estimate(0.9, 0.7, 1.1, 40, 8), Estimate(0.2, 0.1, 0.3, 40, 8)], "0.900 [0.700, 1.100]"),
        ([Estimate(1.0, -0.8, 2.0, 6, 6)], None),  # large, and nothing known
        ([Estimate(1.0, np.nan, np.nan, 3, 3)], None),
        ([Estimate(0.4, 0.3, 0.5, 40, 8)], None),
        ([Estimate.undefined("the denominator does not exclude 0")], None),
        ([], None),
    ],
)
def test_safety_is_called_shared_only_where_another_direction_clearly_brings_it(
    shares: list[Estimate], said: str | None
) -> None:
    from persona_probe.study.cautions import shared_safety

    found = shared_safety("virtue", shares)
    assert len(found) == (said is not None)
    assert all(str(said) in flag and "(n = 40)" in flag for flag in found)


def opinion(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """An agreement on file, of these pairs of outcomes."""
    from persona_probe.evaluation.agreement import agreement
    from persona_probe.evaluation.judge import Judgement
    from persona_probe.evaluation.outcome import Outcome
    from persona_probe.personas.safety_suite import SafetyPrompt
    from persona_probe.steering.generation import Completion

    several: list[list[Judgement]] = [[], []]
    for number, pair in enumerate(pairs):
        prompt = SafetyPrompt(str(number), "harmful", "theft", "T1", f"f{number}", "Steal it?")
        reply = Completion(prompt.id, "before", 0, "Words.", (1,), True)
        for own, kind in zip(several, pair, strict=True):
            own.append(Judgement(prompt, reply, Outcome(kind, "planted")))
    return agreement(*several, resamples=50).to_json()


def test_a_second_judge_that_disagrees_or_does_not_answer_is_said_and_one_that_agrees_is_not() -> (
    None
):
    from persona_probe.study.cautions import second_opinion

    alike = [("refuse", "refuse"), ("harmful", "harmful")] * 10
    assert second_opinion(opinion(alike), "phrases", "chat=M") == []
    assert second_opinion(None, "phrases", None) == []
    crossed = [("refuse", "harmful"), ("harmful", "refuse")] * 10
    (said,) = second_opinion(opinion(crossed), "phrases", "chat=M")
    assert "kappa of chat=M and phrases is -1.000" in said
    assert "0 of 20 replies" in said
    silent = [("refuse", "unscored"), ("harmful", "unscored")] * 10
    (said,) = second_opinion(opinion(silent), "phrases", "chat=M")
    assert "undefined (no reply was scored by both)" in said
    assert "could not read 20 of 20 replies" in said
    # One that answers a tenth of the time agrees where it does: that is said, too.
    (said,) = second_opinion(opinion(alike + silent), "phrases", "chat=M")
    assert "could not read 20 of 40 replies" in said
