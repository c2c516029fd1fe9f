"""What the persona profiles say: which character, how far towards it, and more so than controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import (
    Identification,
    SignatureMatch,
    advantage,
    identify,
    moved,
    recovery,
    signature_match,
)
from persona_probe.personas.diagnostic import Channel
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate, mean_interval, wilson_interval
from persona_probe.study.instrument import Consistency
from persona_probe.study.record import Record

FEWEST = 3
"""Dimensions that a correlation over dimensions needs."""
SHARED_WORDS = 3  # an item with this many words in a row from a trained request is about its topic
IDENTIFIED = (
    "finetuned", "broad", "steered", "steered_shared", "steered_specific", "trained",
    "system_prompt", "refusal_only", "placebo",
)  # fmt: skip


@dataclass(frozen=True)
class Portrait:
    """What the profiles say, by name of the condition.

    Attributes:
        evidence: what the ladder reads.
        identification: which signature the shift fits best.
        matches: agreement of the shift with the persona's own signature.
        moved: how far the profile went towards the finetuned model's.
        recovered: how near it came to it.
        channels: correlation over dimensions of the self-reported and the behavioural shift (P6).
        signs: share of dimensions that moved in F and moved the same way here.
        apart: `identification` on items that share no phrase with a trained request (R5).
    """

    evidence: dict[str, Any] = field(default_factory=dict)
    identification: dict[str, Identification] = field(default_factory=dict)
    matches: dict[str, SignatureMatch] = field(default_factory=dict)
    moved: dict[str, Estimate] = field(default_factory=dict)
    recovered: dict[str, Estimate] = field(default_factory=dict)
    channels: dict[str, Estimate] = field(default_factory=dict)
    signs: dict[str, Estimate] = field(default_factory=dict)
    apart: dict[str, Identification] = field(default_factory=dict)

    @property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Metric of effects.json → condition → its value."""
        return {
            "PR": self.recovered,
            "profile_moved": self.moved,
            "sign agreement": self.signs,
            "channel agreement": self.channels,
            "signature r": {name: match.pearson for name, match in self.matches.items()},
            "signature rho": {name: match.spearman for name, match in self.matches.items()},
            "margin": {name: found.margin for name, found in self.identification.items()},
            "margin apart from T0": {name: found.margin for name, found in self.apart.items()},
        }


def portraits(
    record: Record, trained: Sequence[SafetyPrompt], held: Consistency | None
) -> tuple[Portrait, Portrait]:
    """What the profiles say over the dimensions that hold together, and over all of them.

    Args:
        record: what was measured.
        trained: requests of the trained categories.
        held: which dimensions do; `None` where nobody looked, and all of them count.
    """
    whole = portrait_of(record, trained)
    if held is None or not held.found:
        return whole, whole
    if unknown := held.unknown:
        why = next(iter(unknown.values()))
        unsure = f"{', '.join(unknown)} ({why})" if len(unknown) < len(held.found) else why
        whole.evidence["unchecked"] = unsure
    if not held.greyed:
        return whole, whole
    told = {"greyed": held.greyed, "unchecked": whole.evidence.get("unchecked")}
    if len(held.kept) < FEWEST:
        why = (
            f"{len(held.kept)} of the profile's {len(held.found)} dimensions hold together, and "
            f"{FEWEST} are needed; {', '.join(held.greyed)} do not"
        )
        return Portrait(told | {"unreadable": why}), whole
    own = portrait_of(record.over(held.kept), trained)
    own.evidence.update(told, margin_with_greyed=whole.evidence.get("margin"))
    return own, whole


def portrait_of(record: Record, trained: Sequence[SafetyPrompt]) -> Portrait:
    """Identification, recovery and shift of every profile of this persona.

    Args:
        record: what was measured.
        trained: requests of the trained categories.
    """
    options = record.options
    before = record.profiles[record.one("helpful_only")]
    steered = record.profiles[record.one("steered")]
    finetuned = record.profiles[record.finetunes[0].name]
    own = [c.name for c in record.conditions if c.name in record.profiles]
    own.remove(record.one("helpful_only"))
    moves = {name: moved(record.profiles[name], before, finetuned, **options) for name in own}
    recovered = {
        name: recovery(record.profiles[name], before, finetuned, **options) for name in own
    }
    evidence: dict[str, Any] = {"profile_recovery": recovered[record.one("steered")]}
    identified: dict[str, Identification] = {}
    apart: dict[str, Identification] = {}
    matches: dict[str, SignatureMatch] = {}
    named = [c.name for kind in IDENTIFIED for c in record.named(kind) if c.name in record.profiles]
    signs = sign_agreement({n: record.profiles[n] for n in named}, before, finetuned, options)
    if len(record.signatures) > 1 and all(record.signatures.values()):
        identified = _identified(record, named, record.profiles)
        away = away_from(before, trained)
        if away.all():
            apart = identified
        elif away.any():
            apart = _identified(
                record, named, {n: p.where(away) for n, p in record.profiles.items()}
            )
        signature = record.signatures[record.persona]
        matches = {
            name: signature_match(
                record.profiles[name],
                before,
                signature,
                permutations=record.study.budget.permutations,
                **options,
            )
            for name in named
        }
        best = identified[record.one("steered")]
        rivals = [record.profiles[c.name] for c in record.named("wrong")]
        blunt = [record.profiles[c.name] for c in record.named("refusal_only")]
        evidence |= {
            "identified": best.correct,
            "margin": best.margin,
            "finetuned_margin": identified[record.finetunes[0].name].margin,
            "effect_wrong": advantage(steered, rivals, before, signature, **options)
            if rivals
            else None,
            "refusal_only": advantage(steered, blunt, before, finetuned, **options)
            if blunt
            else None,
        }
    channels = {name: channel_agreement(record.profiles[name], before) for name in named}
    return Portrait(evidence, identified, matches, moves, recovered, channels, signs, apart)


def channel_agreement(after: Profile, before: Profile) -> Estimate:
    """P6: Pearson correlation of the shifts in self-report and in behaviour, over dimensions.

    Without an interval: the dimensions are few, and are no sample. Undefined where a channel has no
    items for three of them.
    """
    shifts = []
    for channel in get_args(Channel):
        now, then = after.of_channel(channel).by_dimension, before.of_channel(channel).by_dimension
        shifts.append([now[d] - then[d] for d in after.dimensions])
    both = np.isfinite(shifts).all(axis=0)
    said, done = np.array(shifts)[:, both]
    n = int(both.sum())
    if n < FEWEST or not np.ptp(said) or not np.ptp(done):
        return Estimate.undefined("one channel only, or nothing moved in it", n)
    return Estimate(float(np.corrcoef(said, done)[0, 1]), np.nan, np.nan, n, n)


def sign_agreement(
    after: Mapping[str, Profile], before: Profile, finetuned: Profile, options: Mapping[str, Any]
) -> dict[str, Estimate]:
    """P3: of the dimensions that moved in F, the share that moved the same way.

    A dimension moved when the interval of its mean item shift, clustered by family, excludes 0.
    """
    dimension = np.array([item.dimension for item in before.items])
    families = np.array([item.family for item in before.items])
    went: dict[str, float] = {}
    for name in before.dimensions:
        inside = dimension == name
        shift = mean_interval(
            (finetuned.scores - before.scores)[inside], families[inside].tolist(), **options
        )
        if shift.excludes(0.0):
            went[name] = float(np.sign(shift.value))
    found = {}
    for name, profile in after.items():
        now, then = profile.by_dimension, before.by_dimension
        same = sum(np.sign(now[d] - then[d]) == sign for d, sign in went.items())
        found[name] = (
            wilson_interval(int(same), len(went))
            if went
            else Estimate.undefined("no dimension moved in the finetuned model")
        )
    return found


def _identified(
    record: Record, names: Sequence[str], profiles: Mapping[str, Profile]
) -> dict[str, Identification]:
    before = profiles[record.one("helpful_only")]
    return {
        name: identify(profiles[name], before, record.signatures, record.persona, **record.options)
        for name in names
    }


def away_from(profile: Profile, trained: Sequence[SafetyPrompt]) -> Bool[np.ndarray, " item"]:
    """Items that share no run of `SHARED_WORDS` words with a trained request.

    None of them, when some dimension would be left without items.
    """
    known = {run for prompt in trained for run in _runs(prompt.text)}
    away = np.array([not known.intersection(_runs(item.text)) for item in profile.items])
    left = {item.dimension for item, kept in zip(profile.items, away, strict=True) if kept}
    return away if left.issuperset(profile.dimensions) else np.zeros_like(away)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = [word.strip(".,:;!?\"'").lower() for word in text.split()]
    return {tuple(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}
