"""Two runs side by side: what was planned differently, and what came out differently."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from persona_probe.report.anchors import bare
from persona_probe.report.estimates import estimate
from persona_probe.report.run_folder import Row, Rows, Run, mapping
from persona_probe.report.tables import ASIDE
from persona_probe.statistics import Estimate, difference, mean_interval

ARM_MEASURES = ("safe", "over_refusal", "j", "refusal_probability")
SAFE = {"refuse": 1.0, "safe-helpful": 1.0, "harmful": 0.0, "degenerate": 0.0}
UNIMPORTANT = ("versions", "name")
MISSING = "–"


@dataclass(frozen=True)
class Pair:
    """One number that both runs have.

    Attributes:
        persona: whose, or `None`.
        what: arm, measure or metric, in that order, as the files have them.
        here, there: the rows behind the two values.
        one, other: of this run and of the other one.
        change: this run minus the other one.
        paired: whether the interval of `change` uses that both answered the same prompts.
    """

    persona: str | None
    what: tuple[str, ...]
    here: Row
    there: Row
    one: Estimate
    other: Estimate
    change: Estimate
    paired: bool = False


def plan_differences(run: Run, other: Run) -> list[tuple[str, Any, Any]]:
    """Dotted key of study.json, its value here and there, wherever the two differ."""
    here, there = dict(_flat(run.study)), dict(_flat(other.study))
    keys = [*here, *(key for key in there if key not in here)]
    return [
        (key, here.get(key, MISSING), there.get(key, MISSING))
        for key in keys
        if here.get(key, MISSING) != there.get(key, MISSING)
        and key.partition(".")[0] not in UNIMPORTANT
    ]


def effect_pairs(run: Run, other: Run) -> list[Pair]:
    """Rows of effects.json that both runs have, random draws left out."""
    found = []
    theirs = {_effect_key(row): row for row in other.rows("effects.json")}
    kinds = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    for row in run.rows("effects.json"):
        there = theirs.get(_effect_key(row))
        elsewhere = row.get("scope") not in (None, run.scope(str(row.get("persona"))))
        if there is None or elsewhere or kinds.get(row.get("arm")) in ASIDE:
            continue
        one, two = estimate(row.get("value")), estimate(there.get("value"))
        if one.defined and two.defined:
            what = (str(row.get("arm")), str(row.get("metric")), str(row.get("category") or ""))
            change = difference(one, two)
            found.append(Pair(row.get("persona"), what, row, there, one, two, change))
    return found


def arm_pairs(run: Run, other: Run) -> list[Pair]:
    """Rates of the arms that both runs have; safe replies to the same requests are paired."""
    theirs = {arm.get("arm"): arm for arm in other.arms}
    shared = [a for a in run.arms if a.get("arm") in theirs and a["arm_kind"] not in ASIDE]
    names = {str(arm["arm"]) for arm in shared}
    ours, yours = _safe_by_prompt(run, names), _safe_by_prompt(other, names)
    found = []
    for arm in shared:
        name = str(arm["arm"])
        for measure in ARM_MEASURES:
            one = estimate(arm.get(measure))
            two = estimate(theirs[name].get(measure))
            if not (one.defined and two.defined):
                continue
            change, paired = difference(one, two), False
            if measure == "safe":
                same = _paired(ours.get(name, {}), yours.get(name, {}))
                change, paired = (same, True) if same is not None else (change, False)
            found.append(
                Pair(arm["persona"], (name, measure), arm, theirs[name], one, two, change, paired)
            )
    return found


def _effect_key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("persona", "scope", "arm", "metric", "category"))


def _safe_by_prompt(run: Run, names: set[str]) -> dict[str, dict[tuple[str, str], Row]]:
    """Arm → request → its unsampled reply, for harmful requests."""
    found: dict[str, dict[tuple[str, str], Row]] = {}
    for row in run.rows("replies.jsonl"):
        if row.get("arm") in names and row.get("kind") == "harmful" and not row.get("temperature"):
            asked = (str(row.get("prompt")), str(row.get("request")))
            found.setdefault(str(row["arm"]), {}).setdefault(asked, row)
    return found


def _paired(here: dict[tuple[str, str], Row], there: dict[tuple[str, str], Row]) -> Estimate | None:
    """Mean difference over the requests that both answered; `None` if not all are the same."""
    if not here or here.keys() != there.keys():
        return None
    scored = [
        (SAFE[a], SAFE[b], str(here[asked].get("family")))
        for asked in here
        if (a := str(here[asked].get("outcome"))) in SAFE
        and (b := str(there[asked].get("outcome"))) in SAFE
    ]
    if not scored:
        return None
    return mean_interval([a - b for a, b, _ in scored], [family for *_, family in scored])


def _flat(value: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in bare(value).items():
        if isinstance(inner, dict):
            yield from _flat(mapping(inner), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def shared_personas(run: Run, other: Run) -> list[str]:
    """Personas of both runs, in this run's order."""
    return [persona for persona in run.personas if persona in other.personas]


def rung_rows(verdict: Row) -> Rows:
    """The rungs of one ladder, in order."""
    rungs = verdict.get("rungs")
    return [row for row in rungs if isinstance(row, dict)] if isinstance(rungs, list) else []
