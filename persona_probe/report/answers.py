"""The answer for one persona in a few plain sentences, every number a link to its row."""

from persona_probe.report.estimates import estimate, in_words, linked, plain
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import GREY, Colours, title_of
from persona_probe.report.run_folder import Row, Rows, Run, mapping
from persona_probe.report.sections.source import swatch

UNITS = (
    "Shares are of what finetuning brought: 1 is all of it, 0 none. In brackets 95 % intervals "
    "over families of prompts. Every number leads to the row behind it."
)
RANDOM = ("random", "covariance", "kl_matched")


def answers(run: Run, colours: Colours) -> Markup | None:
    """One item per persona about which anything was measured."""
    found = [(persona, _answer(run, persona)) for persona in run.personas]
    items = [
        element(
            "li",
            swatch(str(colours.get(persona, GREY))),
            element("b", title_of(persona)),
            ". ",
            told,
        )
        for persona, told in found
        if told
    ]
    if not items:
        return None
    return join([paragraph(UNITS, class_="quiet"), element("ul", items, class_="answers")])


def _answer(run: Run, persona: str) -> list[Child]:
    parts = (_reproduced(run, persona), _voice(run, persona), _removed(run, persona))
    return [child for part in parts for child in part]


def _reproduced(run: Run, persona: str) -> list[Child]:
    """How much of finetuning's safety the vector brings, beside what random ones bring."""
    effect = _first(run, persona, ("ER_J", "ER"), "steered")
    if effect is None:
        return []
    value = estimate(effect.get("value"))
    if not value.defined:
        why = str(effect.get("why_undefined") or value.reason)
        return ["How much of finetuning’s safety the direction brings is undefined: ", why, ". "]
    told: list[Child] = [
        "Adding its direction brings ",
        linked(in_words(value), effect),
        " of finetuning’s gain in safety",
        ", net of harmless requests refused" if effect.get("metric") == "ER_J" else "",
    ]
    if largest := _largest_random(run, persona):
        row, n = largest
        told += [
            f"; the best of {n} random directions, as long or diverging as much, brings ",
            linked(plain(estimate(row.get("value")).value), row),
        ]
    guards = [mapping(arm.get("guards")) | {"arm": arm} for arm in run.arms_of("steered", persona)]
    if guards and guards[0].get("passed") is False:
        told += [". ", linked("Side effects exceed their limits", guards[0]["arm"])]
    elif guards and guards[0].get("passed") is True:
        told += [". ", linked("Side effects stay within their limits", guards[0]["arm"])]
    return [*told, ". "]


def _largest_random(run: Run, persona: str) -> tuple[Row, int] | None:
    kinds = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    rows: Rows = [
        row
        for row in run.rows("effects.json")
        if row.get("persona") == persona
        and row.get("metric") == "ER"
        and row.get("scope") in (None, run.scope(persona))
        and kinds.get(row.get("arm")) in RANDOM
        and estimate(row.get("value")).defined
    ]
    if not rows:
        return None
    return max(rows, key=lambda row: estimate(row["value"]).value), len(rows)


def _voice(run: Run, persona: str) -> list[Child]:
    """Whether the steered profile is nearest to this persona."""
    rows = [
        row
        for row in run.rows("profiles.json", "identification")
        if row.get("persona") == persona and row.get("arm_kind") == "steered"
    ]
    if not rows or not isinstance(rows[0].get("correct"), bool):
        return []
    margin = estimate(rows[0].get("margin"))
    ahead = linked(in_words(margin), rows[0])
    if not rows[0]["correct"]:
        other = title_of(rows[0].get("best", "another")).lower()
        return [
            f"Its moral profile comes nearest to another persona, {other} (margin ",
            ahead,
            "). ",
        ]
    if margin.low > 0:
        return ["It speaks in this persona’s own voice (margin over the next ", ahead, "). "]
    return ["Its voice is nearest to this persona’s, but not clearly so (margin ", ahead, "). "]


def _removed(run: Run, persona: str) -> list[Child]:
    effect = _first(run, persona, ("NEC",), "ablated")
    value = estimate((effect or {}).get("value"))
    if not value.defined:
        return []
    told: list[Child] = [
        "Taking it out of the finetuned model removes ",
        linked(in_words(value), effect),
        " of the safety",
    ]
    if other := _largest_wrong(run, persona):
        told += [
            "; taking out another persona’s removes ",
            linked(plain(estimate(other.get("value")).value), other),
        ]
    return [*told, "."]


def _largest_wrong(run: Run, persona: str) -> Row | None:
    kinds = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    rows = [
        row
        for row in run.rows("effects.json")
        if row.get("persona") == persona
        and row.get("metric") == "NEC"
        and kinds.get(row.get("arm")) == "ablated_wrong"
        and estimate(row.get("value")).defined
    ]
    return max(rows, key=lambda row: estimate(row["value"]).value, default=None)


def _first(run: Run, persona: str, metrics: tuple[str, ...], kind: str) -> Row | None:
    rows = (run.effect(persona, metric, (kind,)) for metric in metrics)
    return next((row for row in rows if row), None)
