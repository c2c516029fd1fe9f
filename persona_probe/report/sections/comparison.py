"""This run beside another one: plans, rungs, and every number that both have."""

import json
from typing import Any

from persona_probe.report.against import (
    Pair,
    arm_pairs,
    effect_pairs,
    plan_differences,
    shared_personas,
)
from persona_probe.report.anchors import PLACE, href, place_of
from persona_probe.report.estimates import number
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import GREY, Colours, title_of
from persona_probe.report.run_folder import Rows, Run
from persona_probe.report.sections.ladder import SIGNS, answer_of, rungs_of
from persona_probe.report.sections.source import swatch
from persona_probe.study.verdict import RUNGS

# Metric of effects.json, the kind of arm that it is about → its name in words, in the figure.
MAIN = {
    ("ER_J", "steered"): "effect reproduced",
    ("ER_refusal_probability", "steered"): "in the probability of refusing",
    ("NEC", "ablated"): "necessity",
    ("PR", "steered"): "profile recovery",
    ("pi_steer", "steered"): "projection to held-out harm",
}


def comparison(run: Run, other: Run, colours: Colours) -> Markup:
    """Everything about the two; the other run's rows are on the page as well."""
    effects, arms = effect_pairs(run, other), arm_pairs(run, other)
    return join(
        [
            paragraph(
                "This run is ",
                element("b", run.name),
                ", the other is ",
                element("b", other.name),
                " (",
                other.link("report.html"),
                "). Differences are this run minus the other one.",
            ),
            _plans(run, other),
            _rungs(run, other, colours),
            _main(run, effects, colours),
            _all("Effects that both runs have", effects),
            _all("Rates of the arms that both runs have", arms),
        ]
    )


def _plans(run: Run, other: Run) -> Markup:
    """Whether the two are comparable at all comes first."""
    unread = [r.name for r in (run, other) if not r.study]
    if unread:
        return paragraph(
            f"Whether both followed one plan is not known: {' and '.join(unread)} has no readable "
            "study.json.",
            class_="note",
        )
    found = plan_differences(run, other)
    if not found:
        return paragraph(
            "Both runs follow the same plan, with the same models, prompts and thresholds."
        )
    limits = [key for key, *_ in found if key.startswith("thresholds.")]
    warning = (
        f"Thresholds differ ({', '.join(key.partition('.')[2] for key in limits)}): a rung that "
        "passes in one run and fails in the other may have been asked for something else. "
        if limits
        else "The thresholds are the same. "
    )
    rows: list[list[Child]] = [[element("code", k), _short(a), _short(b)] for k, a, b in found]
    return join(
        [
            paragraph(element("b", "The plans differ. "), warning, class_="note"),
            element(
                "details",
                element("summary", f"What differs in the plans ({len(found)})"),
                numbers_table(("Entry of study.json", "This run", "The other"), rows),
            ),
        ]
    )


def _rungs(run: Run, other: Run, colours: Colours) -> Markup:
    people = shared_personas(run, other)
    only = [title_of(p) for p in (*run.personas, *other.personas) if p not in people]
    rows = []
    for persona in people:
        here, there = (rungs_of(r.verdicts.get(persona, {})) for r in (run, other))
        cells: list[Child] = []
        for code in RUNGS:
            answers = answer_of(here.get(code)), answer_of(there.get(code))
            signs = [
                element("a", SIGNS[answer][0], href=href(r.verdicts.get(persona)))
                for answer, r in zip(answers, (run, other), strict=True)
            ]
            words = f"{SIGNS[answers[0]][1]} here, {SIGNS[answers[1]][1]} there"
            changed = answers[0] != answers[1]
            cells.append(
                element(
                    "span",
                    *((signs[0], " was ", signs[1]) if changed else (signs[0],)),
                    class_="changed" if changed else None,
                    title=f"{code} {RUNGS[code]}: {words}",
                )
            )
        tone = swatch(str(colours.get(persona, GREY)))
        rows.append([[tone, title_of(persona)], *cells])
    return join(
        [
            element("h3", "Rung by rung"),
            numbers_table(("Persona", *(f"{c} {name}" for c, name in RUNGS.items())), rows)
            or paragraph("The two runs have no persona in common.", class_="absent"),
            paragraph(f"In one of the runs only: {', '.join(only)}.", class_="absent")
            if only and people
            else None,
            paragraph(
                "✓ passed, ✕ failed, · not measured; “was” gives the other run’s answer.",
                class_="quiet",
            ),
        ]
    )


def _main(run: Run, pairs: list[Pair], colours: Colours) -> Markup:
    """The effects of the ladder, as a figure and a table."""
    kinds = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    named = [(p, MAIN.get((p.what[1], str(kinds.get(p.what[0]))))) for p in pairs]
    shown = [
        (pair, words)
        for pair, words in named
        if words and pair.here.get("scope") in (None, run.scope(str(pair.persona)))
    ]
    rows: Rows = [
        {
            PLACE: place_of(pair.here),
            "persona": pair.persona,
            "metric": words,
            "change": pair.change.to_json(),
        }
        for pair, words in shown
    ]
    return join(
        [
            element("h3", "What came out differently"),
            exhibit(
                [FIGURES["run_differences"](rows, colours)],
                [
                    "Whiskers are 95 % intervals that take the two runs as independent. Runs on "
                    "the same prompts are not, so these are too wide rather than too narrow; an "
                    "interval that leaves 0 out is a difference.",
                ],
                numbers_table(
                    ("Persona", "Number", "This run", "The other", "Difference"),
                    [[title_of(pair.persona), words, *_cells(pair)] for pair, words in shown],
                ),
                width=860,
            ),
        ]
    )


def _all(title: str, pairs: list[Pair]) -> Markup | None:
    if not pairs:
        return None
    rows: list[list[Child]] = [[" · ".join(part for part in p.what if part), *_cells(p)]
                               for p in pairs]  # fmt: skip
    note = (
        paragraph(
            "Where both runs answered the same requests, the difference of safe replies is taken "
            "request by request (marked: paired).",
            class_="quiet",
        )
        if any(pair.paired for pair in pairs)
        else None
    )
    return element(
        "details",
        element("summary", f"{title} ({len(pairs)})"),
        note,
        numbers_table(("Number", "This run", "The other", "Difference"), rows),
        class_="long",
    )


def _cells(pair: Pair) -> list[Child]:
    return [
        number(pair.one, pair.here),
        number(pair.other, pair.there),
        [number(pair.change, pair.here), element("small", " paired") if pair.paired else None],
    ]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
