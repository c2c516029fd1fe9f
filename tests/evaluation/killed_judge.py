"""Judges slowly into the cache folder given, until somebody kills it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from persona_probe.evaluation import judge as judging
from persona_probe.evaluation.judge import Case, judge_cases
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.evaluation.outcome import Outcome
from persona_probe.personas.safety_suite import SafetyPrompt

PROMPT = SafetyPrompt("p", "harmful", "privacy", "T1", "f", "Do it.")
CASES = [Case(PROMPT, f"No, number {i}.") for i in range(400)]


class Slow:
    """Refusal by the first word; 2 ms a reply."""

    identity = "slow"

    def __init__(self) -> None:
        self.seen = 0

    def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        self.seen += len(cases)
        time.sleep(0.002 * len(cases))
        return [Outcome("refuse", case.reply) for case in cases]


if __name__ == "__main__":
    judging.CHUNK = 4
    judge_cases(Slow(), CASES, JudgementCache(Path(sys.argv[1])))
