"""The last stage: every table, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from persona_probe.files import read_json, write_json
from persona_probe.progress import track
from persona_probe.statistics import holm, json_number
from persona_probe.study.arm_rows import arm_rows, profile_table
from persona_probe.study.assessment import Effects, assess
from persona_probe.study.cautions import cautions, dimensions_greyed, self_report_only, summary
from persona_probe.study.dosing import Response
from persona_probe.study.harm_ledger import harm_ledger
from persona_probe.study.instrument import Consistency, consistency
from persona_probe.study.lab import Lab
from persona_probe.study.mediation import Exchange, mediation_rows
from persona_probe.study.rank_rows import rank_rows
from persona_probe.study.reading import read_records
from persona_probe.study.record import Record
from persona_probe.study.robustness import robustness_said, robustness_table
from persona_probe.study.signatures import Signed, doubts, signed
from persona_probe.study.steerability import steerability
from persona_probe.study.tables import write_tables
from persona_probe.study.tier_rows import tier_table
from persona_probe.study.transfer import transfer_table
from persona_probe.study.verdict import Verdict, judge

Rows = list[dict[str, Any]]


def conclude(lab: Lab) -> None:
    """Assess every persona in every scope, climb the ladders, and write the tables."""
    records = read_records(lab)
    trained = [prompt for prompt in lab.pack.suite.prompts if prompt.tier == "T0"]
    held = consistency(records)
    weighed = track(records, "Weighing evidence", len(records))
    effects = adjusted([assess(record, trained, held) for record in weighed], lab)
    told = signed(effects)
    verdicts = [judge(e.record.persona, e.evidence, lab.study.thresholds) for e in effects]
    robustness = robustness_table(lab, records)
    documents: dict[str, Any] = {
        "arms.json": arm_rows(lab, records),
        "effects.json": [row for e in effects for row in e.rows],
        "profiles.json": profile_table(lab, effects, held, told),
        "steerability.json": _steerability(lab),
        "mediation.json": _mediation(lab),
        "tiers.json": tier_table(lab, records, held),
        "transfer.json": transfer_table(records, held),
        "rank_curve.json": [row for record in records for row in rank_rows(record)],
        "harm_ledger.json": _ledgers(records),
        "robustness.json": robustness,
        "verdict.json": _verdict(lab, effects, verdicts, held, told, robustness),
    }
    write_tables(lab.folder / "tables", documents)
    for name, content in documents.items():
        write_json(lab.folder / name, content)


def adjusted(effects: Sequence[Effects], lab: Lab) -> list[Effects]:
    """Holm over the confirmatory family: persona x scope x (sufficiency, necessity).

    Each test's p is the largest over kinds of random direction: it must beat all of them.
    """
    tests = [(number, kind) for number in range(len(effects)) for kind in ("p_fast", "p_ablated")]
    raw = [max(getattr(effects[n].evidence, kind).values(), default=np.nan) for n, kind in tests]
    family = lab.study.confirmatory_tests
    found = dict(zip(tests, map(float, holm(raw, family)), strict=True))
    floor = family / (1 + lab.study.budget.random_fast)
    return [
        _with_p(e, found[n, "p_fast"], found[n, "p_ablated"], floor) for n, e in enumerate(effects)
    ]


def _with_p(effects: Effects, added: float, removed: float, floor: float) -> Effects:
    told: dict[str, Any] = {
        "p_added": None if np.isnan(added) else added,
        "p_removed": None if np.isnan(removed) else removed,
        "p_floor": min(1.0, floor),
    }
    evidence = replace(effects.evidence, **told)
    record = effects.record
    arms = {"p_fast": record.one("steered")}
    if record.ablated:
        arms["p_ablated"] = record.ablated[0].name
    rows = [
        {
            "persona": record.persona,
            "scope": record.scope,
            "arm": arm,
            "metric": f"p against {kind}",
            "value": None,
            "why_undefined": None,
            "p": json_number(p),
            "p_holm": told["p_added" if test == "p_fast" else "p_removed"],
        }
        for test, arm in arms.items()
        for kind, p in getattr(evidence, test).items()
    ]
    return replace(effects, evidence=evidence, rows=[*effects.rows, *rows])


def _verdict(
    lab: Lab,
    effects: Sequence[Effects],
    verdicts: Sequence[Verdict],
    held: Consistency,
    told: Sequence[Signed],
    robustness: Mapping[str, Any],
) -> dict[str, Any]:
    """Headline ladders under "personas"; those of other scopes under "scopes"."""
    records = [e.record for e in effects]
    pairs = list(zip(records, verdicts, strict=True))
    headline = [verdict for record, verdict in pairs if record.headline]
    scopes: dict[str, dict[str, Any]] = {}
    for record, verdict in pairs:
        if not record.headline:
            scopes.setdefault(record.scope, {})[record.persona] = verdict.to_json()
    checks = {one.persona: one.to_json() for one in told}
    return {
        "personas": {
            record.persona: verdict.to_json()
            | {"scope": record.scope, "signature_check": checks.get(record.persona)}
            for record, verdict in pairs
            if record.headline
        },
        "scopes": scopes,
        "summary": summary(lab, headline),
        "flags": [
            *cautions(lab, records),
            *robustness_said(robustness),
            *dimensions_greyed(held),
            *doubts(told),
            *self_report_only(effects),
        ],
        "study_hash": lab.study.hash,
        "frozen_hash": lab.study.frozen_hash,
    }


def _options(lab: Lab) -> dict[str, Any]:
    return {"resamples": lab.study.budget.resamples, "seed": lab.study.seed}


def _steerability(lab: Lab) -> Rows:
    usable: Mapping[str, float] = read_json(lab.folder / "selection.json")["usable"]
    responses = [Response.from_json(v) for v in read_json(lab.folder / "responses.json")]
    return [steerability(r, usable[r.persona], **_options(lab)).to_json() for r in responses]


def _mediation(lab: Lab) -> Rows:
    found = [Exchange.from_json(value) for value in read_json(lab.folder / "exchanges.json")]
    return mediation_rows(found, **_options(lab))


def _ledgers(records: Sequence[Record]) -> Rows:
    """Every condition that met all prompts, against the model before finetuning."""
    rows: Rows = []
    seen: set[str] = set()
    for record in records:
        before = record.judged[record.one("helpful_only")]
        for condition in record.conditions:
            own = record.judged.get(condition.name, [])
            if len(own) == len(before) and condition.name not in seen and own is not before:
                seen.add(condition.name)
                rows.append(condition.about() | harm_ledger(before, own))
    return rows
