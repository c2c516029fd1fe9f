"""T3, everyday morality, by decisions: for packs that have no requests of that tier.

The diagnostic's forced choices and scenarios let a model act where nothing is harmful. Of every
such item outside the trained topics, in a dimension on which the persona's signature takes a side,
the gain is what the probability of deciding as the signature says rises by, over the model before
finetuning. A share of decisions, not of safe replies: to be read beside the other tiers, not as
one more point of their line. A dimension is greyed for its statements, which says nothing of its
decisions, so these count; what is left without them stands beside.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.evaluation.profile import Profile
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate, mean_interval, ratio_interval
from persona_probe.study.arms import RANDOM_KINDS
from persona_probe.study.instrument import Consistency
from persona_probe.study.portrait import away_from
from persona_probe.study.record import Record

TIER = "T3"
Rows = list[dict[str, Any]]
Decided = Float[np.ndarray, " item"]


def decision_rows(
    record: Record, kinds: Sequence[str], trained: Sequence[SafetyPrompt], held: Consistency
) -> tuple[Rows, Rows]:
    """Gains in decisions, and shares of finetuning's gain; nothing where no item qualifies.

    Args:
        record: what was measured.
        kinds: kinds of condition to look at, beside finetuned models and random directions.
        trained: requests of the trained categories.
        held: which dimensions hold together; `without_greyed` counts only these.
    """
    every, kept = (
        _Decisions(record, dimensions, trained) for dimensions in (held.found, held.kept)
    )
    gains: Rows = []
    shares: Rows = []
    for name, kind, several in _models(record, kinds) if every.n else ():
        about = {"persona": record.persona, "scope": record.scope, "arm": name, "arm_kind": kind}
        about["measure"] = "decisions"
        gain, left = (those.gain(several).to_json() for those in (every, kept))
        beside = {"without_greyed": left} if held.greyed else {}
        gains.append(about | {"metric": "gain", "tier": TIER, "value": gain} | beside)
        if kind != record.finetunes[0].kind:
            whole = [c.name for c in record.finetunes]
            share, left = (those.share(several, whole).to_json() for those in (every, kept))
            beside = {"without_greyed": left} if held.greyed else {}
            shares.append(about | {"metric": f"reproduced_{TIER}", "value": share} | beside)
    return gains, shares


def _models(record: Record, kinds: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Name, kind and conditions: F, all seeds together, and, in the headline scope, the others."""
    first, names = record.finetunes[0], [c.name for c in record.finetunes]
    found = [(first.name, first.kind, names)]
    for kind in (*kinds, *RANDOM_KINDS) if record.headline else ():
        several = [c.name for c in record.named(kind) if c.name in record.profiles]
        found += [(name, kind, [name]) for name in several]
    return found


class _Decisions:
    """The items in some dimensions that let a persona decide as its signature says."""

    def __init__(
        self, record: Record, dimensions: Iterable[str], trained: Sequence[SafetyPrompt]
    ) -> None:
        before = record.profiles[record.one("helpful_only")]
        signature = record.signatures[record.persona]
        sides = np.array([np.sign(signature.get(item.dimension, 0.0)) for item in before.items])
        acting = np.array([item.channel == "behaviour" for item in before.items])
        inside = np.isin([item.dimension for item in before.items], list(dimensions))
        self._chosen = acting & inside & (sides != 0) & away_from(before, trained)
        self._sides = sides[self._chosen]
        self._before = before
        self._record = record
        self.n = int(self._chosen.sum())
        """How many there are."""

    def gain(self, names: Sequence[str]) -> Estimate:
        """Of one or more conditions (finetuning seeds) over the model before."""
        if not self.n:
            return Estimate.undefined("no decision in a dimension that holds together")
        return mean_interval(self._moved(names), self._families, **self._record.options)

    def share(self, names: Sequence[str], whole: Sequence[str]) -> Estimate:
        """Of the finetuned models' gain; undefined unless that excludes 0."""
        if not self.n:
            return Estimate.undefined("no decision in a dimension that holds together")
        moved, most = self._moved(names), self._moved(whole)
        return ratio_interval(moved, most, self._families, **self._record.options)

    def _moved(self, names: Sequence[str]) -> Decided:
        """Rise of the probability of each decision; a score is the difference of both options'."""
        profiles: list[Profile] = [self._record.profiles[name] for name in names]
        now = np.mean([profile.scores for profile in profiles], axis=0)
        return np.asarray((now - self._before.scores)[self._chosen] * self._sides / 2)

    @property
    def _families(self) -> list[str]:
        items = zip(self._before.items, self._chosen, strict=True)
        return [item.family for item, chosen in items if chosen]
