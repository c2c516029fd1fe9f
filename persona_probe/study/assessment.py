"""From the three channels to effects with intervals, and to the evidence that the ladder reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate
from persona_probe.study.band import Band
from persona_probe.study.effect_rows import Rows, rows_of
from persona_probe.study.evidence import Evidence
from persona_probe.study.fractions import BANDS, band, band_effects
from persona_probe.study.instrument import Consistency
from persona_probe.study.necessity import effect_removed, null_p
from persona_probe.study.portrait import Portrait, portraits
from persona_probe.study.projectability import Tiers
from persona_probe.study.record import Record
from persona_probe.study.sufficiency import effect_reproduced, reproduction
from persona_probe.study.verdict import RIVAL

CHANCE = 0.5
ABLATION_CONTROLS = {
    "ablated_wrong": RIVAL,
    "ablated_random": "random",
    "ablated_covariance": "covariance",
}


@dataclass(frozen=True)
class Effects:
    """One persona's effects in one scope.

    Attributes:
        record: what was measured.
        rows: tidy rows for effects.json.
        evidence: what the ladder reads; p-values not yet adjusted for the number of tests.
        portrait: what the profiles say, over the dimensions that hold together.
        whole: the same over all dimensions.
    """

    record: Record
    rows: Rows
    evidence: Evidence
    portrait: Portrait
    whole: Portrait


def assess(
    record: Record, trained: Sequence[SafetyPrompt], held: Consistency | None = None
) -> Effects:
    """Compute every effect of one persona in one scope.

    Args:
        record: what was measured.
        trained: requests of the trained categories.
        held: which dimensions of the profile hold together; `None` counts all of them.
    """
    steered = record.one("steered")
    behaviours = (record.behaviour([steered]), record.finetuned(), record.before())
    options, thresholds = record.options, record.study.thresholds
    bands = {kind: band_effects(record, kind) for kind in BANDS}
    added, ablated = record.null("added"), record.null("ablated")
    portrait, whole = portraits(record, trained, held)
    auroc = Estimate.from_json(record.detection["auroc"])
    same = reproduction(*behaviours, record.families, thresholds.equivalence, **options)
    evidence = Evidence(
        layer=record.contrast["site"],
        auroc=auroc,
        auroc_contrast=Estimate.from_json(record.contrast["auroc"]),
        permutation_p=max(record.contrast["permutation_p"], record.detection["permutation_p"]),
        # The tokens are the same on both sides, so whatever reads the surface is at chance.
        surface_gain=auroc.value - CHANCE,
        split_half=record.contrast["split_half"],
        cone=record.contrast["cone"],
        p_fast=null_p(added) if added else {},
        effect=_measured(effect_reproduced(*behaviours, record.families, **options)),
        effect_j=_measured(effect_reproduced(*behaviours, record.families, net=True, **options)),
        bands={kind: found for kind in BANDS if (found := band(record, kind))},
        guard_reasons=tuple(record.guards[steered]["reasons"]),
        equivalence=same if same.difference.n else None,
        necessity=_measured(necessity(record)),
        necessity_controls=_necessity_controls(record),
        p_ablated=null_p(ablated) if ablated else {},
        retention=_measured(_retention(record)),
        **portrait.evidence,
    )
    rows = rows_of(record, evidence, (portrait, whole), bands)
    return Effects(record, rows, evidence, portrait, whole)


def _measured(estimate: Estimate | None) -> Estimate | None:
    """What rests on no scored reply at all was not measured, and has not failed."""
    return estimate if estimate is not None and estimate.n else None


def necessity(record: Record) -> Estimate | None:
    """NEC over all seeds of the scope: each ablated finetune against itself."""
    if not record.ablated:
        return None
    return effect_removed(
        record.behaviour(c.name for c in record.ablated),
        record.finetuned(),
        record.before(),
        record.families,
        **record.options,
    )


def _retention(record: Record) -> Estimate:
    tiers = Tiers(record.prompts, record.options)
    return tiers.steered_retention(
        "T2",
        record.behaviour([record.one("steered")], trained=True),
        record.finetuned(trained=True),
        record.before(trained=True),
    )


def _necessity_controls(record: Record) -> Mapping[str, Band]:
    """The most that any control ablation of each kind removes; made in the headline scope only."""
    if not record.headline:
        return {}
    return {
        words: found
        for kind, words in ABLATION_CONTROLS.items()
        if (found := band(record, kind, removed=True))
    }
