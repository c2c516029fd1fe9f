"""The last stage: tables of arms, effects and profiles, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import dimension_scores
from persona_probe.evaluation.rates import safe_rate, safety_rates
from persona_probe.files import write_json
from persona_probe.statistics import holm, mean_interval
from persona_probe.study.assessment import Effects, assess
from persona_probe.study.lab import Lab
from persona_probe.study.reading import conditions_of, read_records, sampled
from persona_probe.study.record import Record
from persona_probe.study.verdict import RUNGS, Verdict, judge

Rows = list[dict[str, Any]]


def conclude(lab: Lab) -> None:
    """Assess every persona, climb the ladder, and write the tables."""
    records = read_records(lab)
    effects = {record.persona: assess(record) for record in records}
    _adjust(effects)
    verdicts = [
        judge(persona, found.evidence, lab.study.thresholds) for persona, found in effects.items()
    ]
    write_json(lab.folder / "arms.json", _arms(lab, records))
    write_json(lab.folder / "effects.json", [row for e in effects.values() for row in e.rows])
    write_json(lab.folder / "profiles.json", _profiles(lab, records, effects))
    write_json(
        lab.folder / "verdict.json",
        {
            "personas": {verdict.persona: verdict.to_json() for verdict in verdicts},
            "summary": _summary(lab, verdicts),
            "flags": _flags(lab),
            "study_hash": lab.study.hash,
        },
    )


def _adjust(effects: dict[str, Effects]) -> None:
    """Holm over all personas and kinds of random direction."""
    tests = [(persona, kind) for persona, e in effects.items() for kind in e.evidence.p_fast]
    raw = [effects[persona].evidence.p_fast[kind] for persona, kind in tests]
    adjusted = dict(zip(tests, map(float, holm(raw)), strict=True))
    for persona, found in effects.items():
        p_fast = {kind: adjusted[persona, kind] for kind in found.evidence.p_fast}
        rows = [
            {
                "persona": persona,
                "arm": f"steered/{persona}",
                "metric": f"p against {kind}",
                "value": None,
                "why_undefined": None,
                "p": found.evidence.p_fast[kind],
                "p_holm": p,
            }
            for kind, p in p_fast.items()
        ]
        effects[persona] = replace(
            found, evidence=replace(found.evidence, p_fast=p_fast), rows=[*found.rows, *rows]
        )


def _arms(lab: Lab, records: Sequence[Record]) -> Rows:
    """One row per condition: rates with intervals, by category and tier, and guards."""
    rows: Rows = []
    at_random = sampled(lab.folder, lab.pack)
    seen: set[str] = set()
    for record in records:
        for condition in record.conditions:
            if condition.name in seen or condition.name not in record.judged:
                continue
            seen.add(condition.name)
            rows.append(
                condition.about()
                | {
                    "site": condition.layer,
                    "strength": condition.strength,
                    "seed": condition.seed,
                    "guards": record.guards.get(condition.name),
                }
                | _rates(record, condition.name, at_random)
            )
    return rows


def _rates(record: Record, name: str, at_random: Mapping[str, Any]) -> dict[str, Any]:
    judged, options = record.judged[name], record.options
    rates = safety_rates(judged, **options)

    def safe(values: Sequence[Any]) -> dict[str, Any]:
        return safe_rate(values, **options).to_json()

    harmful = [j for j in judged if j.prompt.kind == "harmful"]
    categories = dict.fromkeys(j.prompt.category for j in harmful)
    tiers = sorted({str(j.prompt.tier) for j in harmful})
    refusal = record.refusal.get(name)
    drawn = [j for j in at_random.get(name, []) if j.prompt.kind == "harmful"]
    return {
        "safe": rates.safe.to_json(),
        "over_refusal": rates.over_refusal.to_json(),
        "j": rates.net.to_json(),
        "degenerate": rates.degenerate.to_json(),
        "unscored": rates.unscored,
        "n": len(judged),
        "by_category": {
            c: safe([j for j in harmful if j.prompt.category == c]) for c in categories
        },
        "by_tier": {t: safe([j for j in harmful if j.prompt.tier == t]) for t in tiers},
        "safe_sampled": safe(drawn) if drawn else None,
        "refusal_probability": None
        if refusal is None
        else mean_interval(refusal, record.fast_families, **options).to_json(),
    }


def _profiles(
    lab: Lab, records: Sequence[Record], effects: Mapping[str, Effects]
) -> dict[str, Any]:
    found: dict[str, Profile] = {}
    for record in records:
        found |= record.profiles
    about = {c.name: c.about() for c in conditions_of(lab.folder)}
    options = records[0].options
    rows = [
        about[name] | {"dimension": dimension, "score": estimate.to_json()}
        for name, profile in found.items()
        for dimension, estimate in dimension_scores(profile, **options).items()
    ]
    return {
        "rows": rows,
        "identification": [
            about[name]
            | {
                "best": match.best,
                "correct": match.correct,
                "margin": match.margin.to_json(),
                "matches": {n: e.to_json() for n, e in match.matches.items()},
            }
            for e in effects.values()
            for name, match in e.identification.items()
        ],
        "signatures": records[0].signatures,
    }


def _summary(lab: Lab, verdicts: Sequence[Verdict]) -> list[str]:
    """The verdict in words, one sentence per persona."""
    sentences = []
    for verdict in verdicts:
        title = lab.pack.persona(verdict.persona).title
        reached, failed = verdict.highest_unbroken, verdict.first_failed
        climbed = "reaches no rung" if reached is None else f"reaches {reached} ({RUNGS[reached]})"
        held = [r.rung for r in verdict.rungs if r.passed]
        stopped = (
            "no rung failed"
            if failed is None
            else f"the first failed rung is {failed.rung} ({RUNGS[failed.rung]})"
        )
        sentences.append(
            f"{title}: {climbed}; {stopped}; rungs that hold by themselves: "
            f"{', '.join(held) or 'none'}."
        )
    return sentences


def _flags(lab: Lab) -> list[str]:
    """What a reader must know before quoting a number."""
    study = lab.study
    flags = []
    for persona in study.personas:
        if (seeds := len(study.narrow(persona))) < 3:
            flags.append(f"case study: {persona} was finetuned with {seeds} seed(s), not 3 or more")
    flags += [
        f"no {kind} control: nothing can be claimed about ethics without it"
        for kind in ("placebo", "refusal-only")
        if kind not in study.controls
    ]
    return flags
