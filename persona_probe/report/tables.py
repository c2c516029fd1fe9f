"""Run-folder rows, flattened into the rows that figures draw."""

from collections.abc import Iterable
from typing import Any

from persona_probe.report.anchors import PLACE, bare, place_of
from persona_probe.report.estimates import estimate, number_in
from persona_probe.report.run_folder import Row, Rows, Run, mapping

MODELS = ("helpful_only", "finetuned", "steered", "ablated")
CONTROLS = ("random", "covariance")
# Kinds of which a run holds many, one like the other: summarised, and listed in its files.
DRAWS = (
    "random", "covariance", "shuffled", "kl_matched", "ablated_random", "ablated_covariance",
    "ablated_rank", "ablated_rank_random",
)  # fmt: skip
# Kinds that a comparison of two runs leaves to their files.
ASIDE = (*DRAWS, "orthogonalised", "zero", "ablated_before", "sign_flip")


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


def reproduced_rows(run: Run, persona: str) -> Rows:
    """Rows of effects.json for `category_reproduced`; the scope of the ladder comes first."""
    kind_of = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    rows = [
        {
            "arm_kind": kind_of.get(row.get("arm"), "steered"),
            "persona": persona,
            "category": row.get("category"),
            "tier": run.tiers.get(str(row.get("category")), ""),
            "scope": row.get("scope"),
            "reproduced": row.get("value") or {"reason": row.get("why_undefined")},
            PLACE: place_of(row),
        }
        for row in run.rows("effects.json")
        if row.get("metric") == "ER in category" and row.get("persona") == persona
    ]
    return sorted(rows, key=lambda row: row["scope"] != run.scope(persona))


def dose_rows(run: Run, persona: str) -> Rows:
    """Rows of dose.json for one persona, with the two levels and the guards."""
    rows = [
        row | {"refusal_probability": _with_n(row.get("refusal_probability"), row.get("n"))}
        for row in run.rows("dose.json")
        if row.get("persona") in (persona, None)
    ]
    levels = [
        _named(arm) | {"refusal_probability": arm.get("refusal_probability")}
        for kind in ("helpful_only", "finetuned")
        for arm in run.arms_of(kind, persona)[:1]
    ]
    return [*rows, *levels, *guard_rows(run, persona)]


def guard_rows(run: Run, persona: str) -> Rows:
    """The sweep on the select split, at the layer that was chosen.

    `in_guard` is None for strengths whose side effects were not measured.
    """
    layer = run.chosen.get(persona, {}).get("layer")
    return [
        {
            PLACE: place_of(row),
            "arm_kind": "guard",
            "strength": row.get("strength"),
            "chosen": row.get("chosen") is True,
            "in_guard": _inside(row),
        }
        for row in run.rows("selection.json")
        if row.get("persona") == persona and row.get("layer") == layer
    ]


def _inside(row: Row) -> Any:
    """Whether a candidate passed its guards; those that diverge too much were not tried further."""
    passed = mapping(row.get("guards")).get("passed")
    return False if passed is None and row.get("quiet") is False else passed


def profile_rows(run: Run, persona: str) -> Rows:
    """Rows of profiles.json for one persona: its models and what was expected.

    `consistent` is False for dimensions that were found not to hold together.
    """
    doubtful = {r.get("dimension") for r in consistency_of(run) if r.get("consistent") is False}
    rows = [
        row | {"consistent": row.get("dimension") not in doubtful}
        for row in run.rows("profiles.json")
        if row.get("arm_kind") in (*MODELS, "system_prompt")
        and row.get("persona") in (persona, None)
    ]
    profiles = mapping(run.documents.get("profiles.json"))
    signature = mapping(mapping(profiles.get("signatures")).get(persona))
    about = {"arm_kind": "signature", "persona": persona, PLACE: place_of(signature)}
    expected = [
        about | {"dimension": name, "score": score} for name, score in bare(signature).items()
    ]
    return rows + expected


def consistency_of(run: Run) -> Rows:
    """Per dimension, whether statements worded for and against it move together."""
    return run.rows("profiles.json", "consistency")


def layer_rows(run: Run) -> dict[str, Rows]:
    """Rows of validation.json by what was told apart, the layers that steer marked."""
    found: dict[str, Rows] = {}
    for row in run.rows("validation.json"):
        chosen = run.chosen.get(str(row.get("persona")), {}).get("layer", "unknown")
        marked = row | {"selected": row.get("site") == chosen}
        found.setdefault(str(row.get("family")), []).append(marked)
    return found


def shift_rows(run: Run, persona: str) -> Rows:
    """Rows of comparison.json for one persona, the layer that steers marked."""
    chosen = run.chosen.get(persona, {}).get("layer", "unknown")
    return [
        row
        | {
            "selected": row.get("site") == chosen,
            "cosine": row.get("cosine_interval")
            or _with_n(row.get("cosine"), estimate(row.get("shift")).n),
        }
        for row in run.rows("comparison.json")
        if row.get("persona") == persona
    ]


def usual_layer(run: Run) -> str | None:
    """The layer at which most personas are steered; the first that was compared without one."""
    layers = [str(choice.get("layer")) for choice in run.chosen.values()]
    compared = mapping(mapping(run.documents.get("comparison.json")).get("cosines"))
    known = [layer for layer in layers if layer in compared] or list(compared)
    return max(known, key=known.count) if known else None


def cosine_rows(run: Run) -> Rows:
    """Cells of the matrix of cosines between personas, at the usual layer."""
    content, layer = mapping(run.documents.get("comparison.json")), usual_layer(run)
    names, matrix = content.get("personas"), mapping(content.get("cosines")).get(str(layer))
    if not isinstance(names, list) or not isinstance(matrix, list):
        return []
    about = run.entry("comparison.json", "cosines") | {"site": layer}
    return [
        about | {"a": a, "b": b, "cosine": cell}
        for a, line in zip(names, matrix, strict=False)
        if isinstance(line, list)
        for b, cell in zip(names, line, strict=False)
    ]


def plane_rows(run: Run) -> Rows:
    """Rows for `sufficiency_necessity`: each persona's two numbers, and the controls'."""
    rows: Rows = []
    for persona in run.personas:
        row: Row = {"persona": persona, "arm_kind": "steered"}
        places: list[str | None] = []
        for key, (metrics, kind) in {
            "sufficiency": (("ER_J", "ER"), "steered"),
            "necessity": (("NEC",), "ablated"),
        }.items():
            found = [run.effect(persona, metric, (kind,)) for metric in metrics]
            first = next((effect for effect in found if effect), None)
            row[key] = (first or {}).get("value")
            row[f"{key}_row"] = first
            places.append(place_of(first))
        rows.append(row | {PLACE: next((place for place in places if place), None)})
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


def _with_n(value: Any, n: Any) -> Any:
    """A bare number as an estimate that says its n; anything else unchanged."""
    if isinstance(value, dict) or number_in(n) != number_in(n):
        return value
    return {"value": value, "n": n}


def _named(arm: Row) -> dict[str, Any]:
    """What a row made from an arm says about it, its place included."""
    return {key: arm.get(key) for key in ("arm", "arm_kind", "persona", "seed", PLACE)}
