"""What the persona profiles say: which character, how far towards it, and more so than controls."""

from dataclasses import dataclass
from typing import Any

from persona_probe.evaluation.profile_match import (
    Identification,
    advantage,
    identify,
    moved,
    recovery,
)
from persona_probe.statistics import Estimate
from persona_probe.study.record import Record


@dataclass(frozen=True)
class Portrait:
    """What the profiles say."""

    evidence: dict[str, Any]
    identification: dict[str, Identification]
    moved: dict[str, Estimate]
    recovered: dict[str, Estimate]


def portrait_of(record: Record) -> Portrait:
    """Identification, recovery and shift of every profile of this persona."""
    options = record.options
    before = record.profiles[record.one("helpful_only")]
    steered = record.profiles[record.one("steered")]
    finetuned = record.profiles[record.named("finetuned")[0].name]
    own = [c.name for c in record.conditions if c.name in record.profiles]
    own.remove(record.one("helpful_only"))
    moves = {name: moved(record.profiles[name], before, finetuned, **options) for name in own}
    recovered = {
        name: recovery(record.profiles[name], before, finetuned, **options) for name in own
    }
    evidence: dict[str, Any] = {"profile_recovery": recovered[record.one("steered")]}
    identified: dict[str, Identification] = {}
    if len(record.signatures) > 1:
        identified = {
            c.name: identify(
                record.profiles[c.name], before, record.signatures, record.persona, **options
            )
            for kind in ("finetuned", "broad", "steered", "steered_specific", "system_prompt")
            for c in record.named(kind)
        }
        best = identified[record.one("steered")]
        rivals = [record.profiles[c.name] for c in record.named("wrong")]
        blunt = [record.profiles[c.name] for c in record.named("refusal_only")]
        signature = record.signatures[record.persona]
        evidence |= {
            "identified": best.correct,
            "margin": best.margin,
            "effect_wrong": advantage(steered, rivals, before, signature, **options),
            "refusal_only": advantage(steered, blunt, before, finetuned, **options)
            if blunt
            else None,
        }
    return Portrait(evidence, identified, moves, recovered)
