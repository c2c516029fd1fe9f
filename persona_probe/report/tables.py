"""Run-folder rows, flattened into the rows that figures draw."""

from collections.abc import Iterable
from typing import Any

from persona_probe.report.estimates import number_in
from persona_probe.report.run_folder import Row, Rows, Run, mapping

MODELS = ("helpful_only", "finetuned", "steered", "ablated")
CONTROLS = ("random", "covariance")


def tier_rows(run: Run, kinds: Iterable[str] = (*MODELS[:3], *CONTROLS)) -> Rows:
    """One row per arm and tier, for `effect_by_tier`; controls without a persona serve all."""
    return [
        _named(arm) | {"tier": tier, "safe": value}
        for arm in run.arms
        if arm["arm_kind"] in kinds
        for tier, value in mapping(arm.get("by_tier")).items()
    ]


def category_rows(run: Run, persona: str) -> Rows:
    """One row per arm and category, for `category_effects`, and one for over-refusal."""
    tiers = run.tiers
    rows: Rows = []
    for kind in (*MODELS, *CONTROLS):
        for arm in run.arms_of(kind, persona):
            for category, value in mapping(arm.get("by_category")).items():
                tier = tiers.get(category, "")
                rows.append(_named(arm) | {"category": category, "tier": tier, "safe": value})
            if arm.get("over_refusal") is not None:
                extra = {"category": "harmless requests", "tier": "permitted"}
                rows.append(_named(arm) | extra | {"safe": arm["over_refusal"]})
    return rows


def dose_rows(run: Run, persona: str) -> Rows:
    """Rows of dose.json for one persona, with the two levels and the guards."""
    rows = [row for row in run.rows("dose.json") if row.get("persona") in (persona, None)]
    levels = [
        _named(arm) | {"refusal_probability": arm.get("refusal_probability")}
        for kind in ("helpful_only", "finetuned")
        for arm in run.arms_of(kind, persona)[:1]
    ]
    return [*rows, *levels, *_guard_rows(run, persona)]


def _guard_rows(run: Run, persona: str) -> Rows:
    """The sweep on the select split, at the site that was chosen (or the only one)."""
    sweep = [row for row in run.rows("selection.json") if row.get("persona") == persona]
    chosen = next((row for row in sweep if row.get("chosen")), None)
    if chosen is None:
        sites = {row.get("site") for row in sweep}
        return [{**row, "arm_kind": "guard"} for row in sweep] if len(sites) == 1 else []
    same = ("site", "schedule")
    kept = [row for row in sweep if all(row.get(key) == chosen.get(key) for key in same)]
    return [{**row, "arm_kind": "guard"} for row in kept]


def profile_rows(run: Run, persona: str) -> Rows:
    """Rows of profiles.json for one persona: four models and what was expected."""
    rows = [
        row
        for row in run.rows("profiles.json")
        if row.get("arm_kind") in MODELS and row.get("persona") in (persona, None)
    ]
    profiles = mapping(run.documents.get("profiles.json"))
    signature = mapping(mapping(profiles.get("signatures")).get(persona))
    expected = [
        {"arm_kind": "signature", "persona": persona, "dimension": name, "score": score}
        for name, score in signature.items()
    ]
    return rows + expected


def shift_rows(run: Run, persona: str) -> Rows:
    """Rows of comparison.json for one persona, the site that is steered marked."""
    chosen = {
        row.get("site")
        for row in run.rows("selection.json")
        if row.get("persona") == persona and row.get("chosen")
    } or {
        row.get("site")
        for row in run.rows("validation.json")
        if row.get("persona") == persona and row.get("selected")
    }
    return [
        {**row, "selected": row.get("site") in chosen}
        for row in run.rows("comparison.json")
        if row.get("persona") == persona
    ]


def cosine_rows(run: Run) -> Rows:
    """Cells of the matrix of cosines between personas."""
    found = mapping(mapping(run.documents.get("comparison.json")).get("persona_cosines"))
    names, matrix = found.get("personas"), found.get("matrix")
    if not isinstance(names, list) or not isinstance(matrix, list):
        return []
    return [
        {"a": a, "b": b, "cosine": cell, "site": found.get("site")}
        for a, line in zip(names, matrix, strict=False)
        if isinstance(line, list)
        for b, cell in zip(names, line, strict=False)
    ]


def plane_rows(run: Run) -> Rows:
    """Rows for `sufficiency_necessity`: each persona's two numbers, and the controls'."""
    rows: Rows = []
    for persona in run.personas:
        row: Row = {"persona": persona, "arm_kind": "steered"}
        for key, (metrics, kind) in {
            "sufficiency": (("ER_J", "ER"), "steered"),
            "necessity": (("NEC",), "ablated"),
        }.items():
            found = [run.effect(persona, metric, (kind,)) for metric in metrics]
            row[key] = next((effect.get("value") for effect in found if effect), None)
        rows.append(row)
    kind_of = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    for effect in run.rows("effects.json"):
        control, metric = kind_of.get(effect.get("arm")), effect.get("metric")
        if control in CONTROLS and metric == "ER":
            rows.append({"arm_kind": control, "sufficiency": effect.get("value")})
        if control == "ablated_random" and metric == "NEC":
            rows.append({"arm_kind": control, "necessity": effect.get("value")})
    return rows


def by_strength(rows: Rows) -> list[tuple[float, Rows]]:
    """Rows grouped by strength, in order; rows without one are left out."""
    strengths = {number_in(row.get("strength")) for row in rows}
    kept = sorted(strength for strength in strengths if strength == strength)
    return [(s, [row for row in rows if row.get("strength") == s]) for s in kept]


def _named(arm: Row) -> dict[str, Any]:
    return {key: arm.get(key) for key in ("arm", "arm_kind", "persona", "seed")}
