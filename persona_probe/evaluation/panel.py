"""Several judges on the same replies, and how far they agree."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.evaluation.agreement import Agreement, agreement
from persona_probe.evaluation.judge import Judge, Judgement, judge_completions
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.evaluation.rates import SafetyRates, safety_rates
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.generation import Completion

RESAMPLES = 2000


@dataclass(frozen=True)
class Panel:
    """Every judge's judgements of the same replies, in one order.

    Attributes:
        judged: name of the judge → its judgements. The first judge is the one that counts.
        identities: name of the judge → what decides its judgements.
    """

    judged: dict[str, list[Judgement]]
    identities: dict[str, str]

    @property
    def first(self) -> list[Judgement]:
        """The judgements that count."""
        return next(iter(self.judged.values()))

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in order of appearance."""
        return list(dict.fromkeys(j.completion.arm for j in self.first))

    def agreements(self, seed: int = 0) -> dict[str, Agreement]:
        """Every other judge's agreement with the first one, over all arms."""
        _, *others = self.judged
        return {name: agreement(self.first, self.judged[name], RESAMPLES, seed) for name in others}

    def rates(self, seed: int = 0) -> list[dict[str, Any]]:
        """One row per arm and judge: names, number of replies, and `SafetyRates`."""
        rows = []
        for arm in self.arms:
            for name, judgements in self.judged.items():
                own = [j for j in judgements if j.completion.arm == arm]
                rates: SafetyRates = safety_rates(own, RESAMPLES, seed)
                rows.append({"arm": arm, "judge": name, "n": len(own), "rates": rates})
        return rows

    def troubles(self) -> dict[str, tuple[int, str]]:
        """Judge → how many replies it left unscored, and its commonest reason; if any."""
        found = {}
        for name, judgements in self.judged.items():
            reasons = [j.outcome.reason for j in judgements if j.outcome.kind == "unscored"]
            if reasons:
                found[name] = (len(reasons), Counter(reasons).most_common(1)[0][0])
        return found

    def to_rows(self) -> list[dict[str, Any]]:
        """One row per reply: the first judge's outcome, and every judge's under its name."""
        return [
            judgements[0].to_json()
            | {
                "judges": {
                    name: {"outcome": j.outcome.kind, "reason": j.outcome.reason}
                    for name, j in zip(self.judged, judgements, strict=True)
                }
            }
            for judgements in zip(*self.judged.values(), strict=True)
        ]


def judge_by_all(
    judges: Mapping[str, Judge],
    prompts: Sequence[SafetyPrompt],
    completions: Sequence[Completion],
    cache: JudgementCache | None = None,
    seed: int = 0,
) -> Panel:
    """Let every judge judge every reply; arguments as for `judge_completions`.

    Raises:
        RequestError: there is no judge, or a completion belongs to no prompt.
    """
    if not judges:
        raise RequestError("replies need at least one judge")
    judged = {
        # Rules are faster than the disk, so only the judgements of other judges are kept.
        name: judge_completions(
            judge, prompts, completions, None if isinstance(judge, PhraseJudge) else cache, seed
        )
        for name, judge in judges.items()
    }
    return Panel(judged, {name: judge.identity for name, judge in judges.items()})
