"""From the three channels to effects with intervals, and to the evidence that the ladder reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona_probe.evaluation.profile_match import Identification
from persona_probe.evaluation.rates import outcome_columns
from persona_probe.statistics import Equivalence, Estimate, permutation_p, ratio_interval
from persona_probe.study.arms import RANDOM_KINDS
from persona_probe.study.necessity import effect_removed
from persona_probe.study.portrait import Portrait, portrait_of
from persona_probe.study.projectability import retention, steered_retention
from persona_probe.study.record import Record
from persona_probe.study.sufficiency import effect_reproduced, reproduction
from persona_probe.study.verdict import Evidence

CHANCE = 0.5


@dataclass(frozen=True)
class Effects:
    """One persona's effects.

    Attributes:
        rows: tidy rows for effects.json.
        evidence: what the ladder reads; p-values not yet adjusted for the number of personas.
        identification: of the steered profile, and of each finetune's.
    """

    rows: list[dict[str, Any]]
    evidence: Evidence
    identification: dict[str, Identification]


def assess(record: Record) -> Effects:
    """Compute every effect of one persona."""
    steered = record.one("steered")
    behaviours = (record.behaviour([steered]), record.finetuned(), record.before())
    options = record.options
    effect = effect_reproduced(*behaviours, record.families, **options)
    effect_j = effect_reproduced(*behaviours, record.families, net=True, **options)
    equivalence = reproduction(
        *behaviours, record.families, record.study.thresholds.equivalence, **options
    )
    on_band = {kind: _effects_on_band(record, kind) for kind in RANDOM_KINDS}
    bands = {kind: max(several.values()) for kind, several in on_band.items() if several}
    removed = {
        c.name: effect_removed(
            record.behaviour([c.name]),
            record.behaviour([record.named("finetuned")[0].name]),
            record.before(),
            record.families,
            **options,
        )
        for kind in ("ablated", "ablated_wrong")
        for c in record.named(kind)
    }
    kept = _retention(record, [steered])
    fast = _fast(record)
    portrait = portrait_of(record)
    auroc = Estimate.from_json(record.detection["auroc"])
    evidence = Evidence(
        auroc=auroc,
        auroc_contrast=Estimate.from_json(record.contrast["auroc"]),
        permutation_p=max(record.contrast["permutation_p"], record.detection["permutation_p"]),
        # The tokens are the same on both sides, so whatever reads the surface is at chance.
        surface_gain=auroc.value - CHANCE,
        split_half=record.contrast["split_half"],
        cone=record.contrast["cone"],
        p_fast=fast,
        effect=effect,
        effect_j=effect_j,
        bands=bands,
        guard_reasons=tuple(record.guards[steered]["reasons"]),
        equivalence=equivalence,
        necessity=removed[record.one("ablated")],
        necessity_controls=_necessity_controls(record, removed),
        retention=kept["steered"],
        **portrait.evidence,
    )
    rows = _rows(record, evidence, equivalence, removed, kept, on_band, portrait)
    return Effects(rows, evidence, portrait.identification)


def _effects_on_band(record: Record, kind: str) -> dict[str, float]:
    """ER of each random direction of a kind, on the prompts that it met.

    A direction none of whose replies could be scored has no effect to speak of and is left out;
    its replies are counted as unscored in the table of arms.
    """
    found = {}
    for condition in record.named(kind):
        judged = record.judged[condition.name]
        part = {judgement.prompt.id for judgement in judged}
        kept = [i for i, prompt in enumerate(record.prompts) if prompt.id in part]
        safe = outcome_columns(judged)[:, 0]
        whole = np.nanmean(record.finetuned()[kept, 0]) - np.nanmean(record.before()[kept, 0])
        if np.isfinite(safe).any() and whole:
            gain = np.nanmean(safe) - np.nanmean(record.before()[kept, 0])
            found[condition.name] = float(gain / whole)
    return found


def _fast(record: Record) -> dict[str, float]:
    """Random kind → p of the steered refusal probability among that kind's draws."""
    observed = float(record.refusal[record.one("steered")].mean())
    return {kind: permutation_p(observed, draws) for kind, draws in record.null.items()}


def fast_share(record: Record, name: str) -> Estimate:
    """Share of the finetune's gain in refusal probability that a condition reaches."""
    finetuned = np.mean([record.refusal[c.name] for c in record.named("finetuned")], axis=0)
    before = record.refusal[record.one("helpful_only")]
    return ratio_interval(
        record.refusal[name] - before,
        finetuned - before,
        record.fast_families,
        **record.options,
    )


def _retention(record: Record, steered: Sequence[str]) -> dict[str, Estimate]:
    near, far = record.tier("T0"), record.tier("T2")
    before, finetuned = record.before(trained=True), record.finetuned(trained=True)
    arguments = (near, far, record.families)
    return {
        "finetuned": retention(finetuned, before, *arguments, **record.options),
        "steered": steered_retention(
            record.behaviour(steered, trained=True),
            finetuned,
            before,
            *arguments,
            **record.options,
        ),
    }


def _necessity_controls(record: Record, removed: Mapping[str, Estimate]) -> dict[str, float]:
    """The most that any control ablation of each kind removes."""
    found = {
        "wrong constitution": [removed[c.name].value for c in record.named("ablated_wrong")],
        "random": [1 - left for left in _effects_on_band(record, "ablated_random").values()],
    }
    return {kind: max(values) for kind, values in found.items() if values}


def _rows(
    record: Record,
    evidence: Evidence,
    equivalence: Equivalence,
    removed: Mapping[str, Estimate],
    kept: Mapping[str, Estimate],
    on_band: Mapping[str, Mapping[str, float]],
    portrait: Portrait,
) -> list[dict[str, Any]]:
    """Tidy rows: persona, condition, metric, value with interval."""
    steered = record.one("steered")
    behaviours = [
        c
        for kind in ("steered_shared", "steered_specific", "wrong", "sign_flip", "system_prompt")
        for c in record.named(kind)
    ]
    found: list[tuple[str, str, Estimate | None]] = [
        (steered, "ER", evidence.effect),
        (steered, "ER_J", evidence.effect_j),
        (steered, "Y(F) - Y(S)", equivalence.difference),
        (steered, "pi_steer", kept["steered"]),
        (record.named("finetuned")[0].name, "retention", kept["finetuned"]),
    ]
    for condition in behaviours:
        er = effect_reproduced(
            record.behaviour([condition.name]),
            record.finetuned(),
            record.before(),
            record.families,
            **record.options,
        )
        found.append((condition.name, "ER", er))
    found += [(name, "NEC", value) for name, value in removed.items()]
    found += [(name, "PR", value) for name, value in portrait.recovered.items()]
    found += [(name, "profile_moved", value) for name, value in portrait.moved.items()]
    found += [(name, "ER_refusal_probability", fast_share(record, name)) for name in record.refusal]
    rows = [
        {
            "persona": record.persona,
            "arm": arm,
            "metric": metric,
            "value": None if value is None or not value.defined else value.to_json(),
            "why_undefined": None if value is None else value.reason,
        }
        for arm, metric, value in found
    ]
    return rows + [
        {
            "persona": record.persona,
            "arm": name,
            "metric": "ER",
            "value": {"value": er, "low": None, "high": None, "n": len(record.judged[name])},
            "why_undefined": None,
        }
        for several in on_band.values()
        for name, er in several.items()
    ]
