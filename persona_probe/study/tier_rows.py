"""Gains and retentions by tier, for the models whose projectability is in question."""

from collections.abc import Sequence
from typing import Any

from persona_probe.study.distances import category_distances
from persona_probe.study.everyday import TIER, decision_rows
from persona_probe.study.finding import BEFORE, load_sets
from persona_probe.study.instrument import Consistency
from persona_probe.study.lab import Lab
from persona_probe.study.projectability import NEAR, Tiers
from persona_probe.study.reading import conditions_of
from persona_probe.study.record import Record
from persona_probe.study.sufficiency import Behaviour

PROJECTED = (
    "steered", "steered_shared", "steered_specific", "trained", "system_prompt", "placebo",
    "refusal_only", "shuffled_constitutions", "style_only",
)  # fmt: skip
Rows = list[dict[str, Any]]


def tier_table(lab: Lab, records: Sequence[Record], held: Consistency) -> dict[str, Any]:
    """Gains and ratios of them per persona, and each category's distance from the trained ones.

    Without requests about everyday morality, that tier is measured on decisions; see `everyday`.
    """
    prompts = {prompt.id: prompt for prompt in lab.pack.suite.prompts}
    trained = [prompt for prompt in lab.pack.suite.prompts if prompt.tier == "T0"]
    before = load_sets(lab.folder / "activations" / "shift")[BEFORE]
    layers = {c.persona: c.layer for c in conditions_of(lab.folder) if c.kind == "steered"}
    gains: Rows = []
    ratios: Rows = []
    distances: Rows = []
    for record in records:
        site = before.sites[layers[record.persona] or 0]
        far = category_distances(before, prompts, site)
        if record.headline:
            distances += [
                {
                    "persona": record.persona,
                    "site": site.layer,
                    "category": category,
                    "tier": lab.pack.suite.categories.get(category),
                    "distance": distance,
                }
                for category, distance in far.items()
            ]
        tiers = Tiers(record.prompts, record.options)
        models = _models(record)
        for arm, kind, behaviour in models:
            gains += _gains(record, tiers, arm, kind, behaviour)
            ratios += _ratios(record, tiers, arm, kind, behaviour)
            slope = tiers.distance_slope(behaviour, record.before(trained=True), far)
            ratios.append(_row(record, arm, kind, "distance_slope") | {"value": slope.to_json()})
        if TIER not in tiers.present:
            decided, reproduced = decision_rows(record, PROJECTED, trained, held)
            gains += decided
            ratios += reproduced
    ratios += _relative(records)
    return {"gains": gains, "ratios": ratios, "distances": distances}


def _models(record: Record) -> list[tuple[str, str, Behaviour]]:
    """F, all seeds together, and, beside the headline scope, everything else."""
    finetunes = record.finetunes
    names = [c.name for c in finetunes]
    found = [(names[0], finetunes[0].kind, record.behaviour(names, trained=True))]
    if record.headline:
        found += [
            (c.name, c.kind, record.behaviour([c.name], trained=True))
            for kind in PROJECTED
            for c in record.named(kind)
            if c.name in record.judged
        ]
    return found


def _row(record: Record, arm: str, kind: str, metric: str) -> dict[str, Any]:
    return {
        "persona": record.persona,
        "scope": record.scope,
        "arm": arm,
        "arm_kind": kind,
        "measure": "replies",
        "metric": metric,
    }


def _gains(record: Record, tiers: Tiers, arm: str, kind: str, after: Behaviour) -> Rows:
    before = record.before(trained=True)
    return [
        _row(record, arm, kind, "gain")
        | {"tier": tier, "value": tiers.gain(tier, after, before).to_json()}
        for tier in tiers.present
    ]


def _ratios(record: Record, tiers: Tiers, arm: str, kind: str, after: Behaviour) -> Rows:
    if NEAR not in tiers.present:
        return []
    before = record.before(trained=True)
    rows = [
        _row(record, arm, kind, f"retention_{tier}")
        | {"value": tiers.retention(tier, after, before).to_json()}
        for tier in tiers.present
        if tier != NEAR
    ]
    if kind == "steered":
        finetuned = record.finetuned(trained=True)
        rows += [
            _row(record, arm, kind, f"pi_steer_{tier}")
            | {"value": tiers.steered_retention(tier, after, finetuned, before).to_json()}
            for tier in tiers.present
            if tier != NEAR
        ]
    return rows


def _relative(records: Sequence[Record]) -> Rows:
    """R2: the far gains of narrow finetuning over those of broad, where both were made."""
    by_scope = {(record.persona, record.scope): record for record in records}
    rows: Rows = []
    for (persona, scope), narrow in by_scope.items():
        broad = by_scope.get((persona, "broad"))
        if scope != "narrow" or broad is None:
            continue
        tiers = Tiers(narrow.prompts, narrow.options)
        behaviours = (narrow.finetuned(True), broad.finetuned(True), narrow.before(True))
        name = narrow.finetunes[0].name
        rows += [
            _row(narrow, name, "finetuned", f"relative_{tier}")
            | {"value": tiers.relative(tier, *behaviours).to_json()}
            for tier in tiers.present
            if tier != NEAR
        ]
    return rows
