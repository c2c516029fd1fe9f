"""One row per condition: rates with intervals, by category and tier, and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import dimension_scores
from persona_probe.evaluation.rates import safe_rate, safety_rates
from persona_probe.progress import track
from persona_probe.statistics import Estimate, mean_interval
from persona_probe.study.assessment import Effects
from persona_probe.study.dissociation import dissociation_rows
from persona_probe.study.instrument import Consistency
from persona_probe.study.lab import Lab
from persona_probe.study.reading import conditions_of, sampled
from persona_probe.study.record import Record
from persona_probe.study.signatures import Signed

Rows = list[dict[str, Any]]


def arm_rows(lab: Lab, records: Sequence[Record]) -> Rows:
    """Every condition that gave replies, once."""
    rows: Rows = []
    at_random = sampled(lab.folder, lab.pack)
    seen: set[str] = set()
    for record in track(records, "Rates of arms", len(records)):
        for condition in record.conditions:
            if condition.name in seen or condition.name not in record.judged:
                continue
            seen.add(condition.name)
            rows.append(
                condition.details()
                | {"site": condition.layer, "guards": record.guards.get(condition.name)}
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


def profile_table(
    lab: Lab, effects: Sequence[Effects], held: Consistency, signed: Sequence[Signed]
) -> dict[str, Any]:
    """Scores and consistency per dimension, whose signature each shift fits, the signatures."""
    found: dict[str, Profile] = {}
    for e in effects:
        found |= e.record.profiles
    about = {c.name: c.about() for c in conditions_of(lab.folder)}
    first = effects[0].record
    rows = [
        about[name] | {"dimension": dimension, "score": estimate.to_json()}
        for name, profile in found.items()
        for dimension, estimate in dimension_scores(profile, **first.options).items()
    ]
    return {
        "rows": rows,
        "identification": [
            about[name] | _identified(name, e)
            for e in effects
            if e.record.headline
            for name in e.whole.identification
        ],
        "consistency": held.rows(),
        "signature_check": [one.to_json() for one in signed],
        "dissociation": dissociation_rows(effects),
        "signatures": first.signatures,
    }


def _identified(name: str, effects: Effects) -> dict[str, Any]:
    """Whose profile a condition has; where dimensions are greyed, beside it what they would say."""
    match, whole = effects.portrait.identification.get(name), effects.whole.identification[name]
    row: dict[str, Any] = {"own": whole.own, "best": None, "correct": None}
    if match is None:
        nothing = Estimate.undefined(str(effects.portrait.evidence.get("unreadable", "greyed")))
        row |= {"margin": nothing.to_json(), "matches": {}}
    else:
        row |= {"best": match.best, "correct": match.correct, "margin": match.margin.to_json()}
        row["matches"] = {n: e.to_json() for n, e in match.matches.items()}
    if effects.portrait is not effects.whole:
        row["with_greyed"] = {"best": whole.best, "correct": whole.correct}
        row["with_greyed"]["margin"] = whole.margin.to_json()
    return row
