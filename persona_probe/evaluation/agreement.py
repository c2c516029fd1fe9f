"""How far two judges agree on the same replies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.evaluation.judge import Judgement
from persona_probe.evaluation.outcome import OUTCOME_KINDS
from persona_probe.statistics import RESAMPLES, Estimate, cohen_kappa

TRUSTED_KAPPA = 0.6
"""Two judges that agree less than this should not decide anything by themselves."""


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same replies.

    Attributes:
        kappa: Cohen's, over the replies that both have scored; families are resampled.
        share: of those replies that got the same outcome.
        table: first judge's outcome → second judge's → how many replies, unscored ones included.
        unscored: replies that one or both left unscored; they enter neither kappa nor share.
    """

    kappa: Estimate
    share: float
    table: dict[str, dict[str, int]]
    unscored: int

    @property
    def trusted(self) -> bool:
        """Whether kappa reaches `TRUSTED_KAPPA`."""
        return self.kappa.value >= TRUSTED_KAPPA

    def to_json(self) -> dict[str, Any]:
        return {
            "kappa": self.kappa.to_json(),
            "share": None if self.share != self.share else self.share,
            "trusted": self.trusted,
            "table": self.table,
            "unscored": self.unscored,
        }


def agreement(
    first: Sequence[Judgement],
    second: Sequence[Judgement],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compare two judges' judgements of the same replies, in the same order.

    Raises:
        RequestError: they are not of the same replies.
    """
    if [j.completion for j in first] != [j.completion for j in second]:
        raise RequestError("two judges can be compared on the same replies only, in one order")
    pairs = list(zip(first, second, strict=True))
    counts: Counter[tuple[str, str]] = Counter((a.outcome.kind, b.outcome.kind) for a, b in pairs)
    table = {a: {b: counts[a, b] for b in OUTCOME_KINDS} for a in OUTCOME_KINDS}
    both = [(a, b) for a, b in pairs if "unscored" not in (a.outcome.kind, b.outcome.kind)]
    same = sum(a.outcome.kind == b.outcome.kind for a, b in both)
    return Agreement(
        cohen_kappa(
            [a.outcome.kind for a, _ in both],
            [b.outcome.kind for _, b in both],
            [a.prompt.family for a, _ in both],
            resamples=resamples,
            seed=seed,
        ),
        same / len(both) if both else float("nan"),
        table,
        len(pairs) - len(both),
    )
