"""Dose and response: refusal against the strength of the added direction."""

from persona_probe.report.canvas import spread
from persona_probe.report.estimates import estimate, in_words, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import by_strength, dose_rows

READING = (
    "Solid line: probability that the model begins to refuse a harmful request, as the direction "
    "is added more strongly; dotted line: the same for harmless requests, which should stay low. "
    "Grey: where 90 % of random directions of the same length fall (shaded: any direction; dotted "
    "edges: directions spread as real activations are). Dashed levels: the models before and after "
    "finetuning. Shaded strengths are those at which a side effect exceeds its limit."
)


def dose(run: Run, colours: Colours) -> Markup:
    """One panel per persona."""
    rows = {persona: dose_rows(run, persona) for persona in run.personas}
    measured = {
        persona: own
        for persona, own in rows.items()
        if any(row.get("arm_kind") == "direction" for row in own)
    }
    silent = [
        title_of(p) for p in run.personas if p not in measured and "dose.json" not in run.absent
    ]
    return join(
        [
            paragraph(
                "A direction that causes refusal makes more of it the more it is added. One that "
                "only breaks the model does so as well, and so may any vector of that length; "
                "hence the bands of random directions, the harmless requests, and the limits on "
                "side effects. Strength is in units of the typical (median) length of the "
                "activations to which the direction is added."
            ),
            exhibit(
                [FIGURES["dose_response"](own, colours) for own in measured.values()],
                [READING, source(run, "dose.json", "selection.json", "arms.json")],
                _numbers(measured),
                neutral_key=True,
                notice=absences(run, "dose.json"),
            ),
            paragraph(f"Not measured for {', '.join(silent)}.", class_="absent")
            if silent and measured
            else None,
            _slopes(run, colours),
        ]
    )


def _slopes(run: Run, colours: Colours) -> Markup | None:
    rows = run.rows("steerability.json")
    if not rows:
        return None
    keys = ("slope", "anti_steerable", "monotonicity")
    lines: list[list[Child]] = [
        [
            title_of(row.get("persona")),
            str(row.get("measure")),
            *(number(estimate(row.get(key)), row) for key in keys),
            linked(plain(number_in(row.get("usable_range"))), row),
        ]
        for row in rows
    ]
    head = (
        "Persona", "Measure", "Mean slope", "Share against", "Rank correlation with strength",
        "Strongest within limits",
    )  # fmt: skip
    return join(
        [
            element("h3", "Does every request go the same way?"),
            exhibit(
                [FIGURES["steerability"](rows, colours)],
                [
                    "Each dot is one request: how much its measure rises per unit of strength, "
                    "over strengths within the limits. Dots left of 0 are steered the wrong way, "
                    "which a rising mean would hide.",
                    source(run, "steerability.json"),
                ],
                numbers_table(head, lines),
                width=860,
            ),
        ]
    )


def _numbers(measured: dict[str, Rows]) -> Markup | None:
    lines: list[list[Child]] = []
    for persona, rows in measured.items():
        for strength, group in by_strength(rows):
            own = next((r for r in group if r.get("arm_kind") == "direction"), None)
            if own is not None:
                lines.append([title_of(persona), f"{strength:g}", *_cells(own, group)])
    head = (
        "Persona", "Strength", "Refuses harmful", "Refuses harmless", "KL, nats",
        "Random: median [5 %, 95 %]", "Covariance-matched: the same", "Inside limits",
    )  # fmt: skip
    return numbers_table(head, lines)


def _cells(own: Row, group: Rows) -> list[Child]:
    guard = next((row.get("in_guard") for row in group if row.get("arm_kind") == "guard"), None)
    return [
        number(estimate(own.get("refusal_probability")), own),
        number(estimate(own.get("over_refusal_probability")), own),
        linked(in_words(estimate(own.get("kl")), 3), own),
        *(_band(group, kind) for kind in ("random", "covariance")),
        {True: "yes", False: "no"}.get(guard, "–") if isinstance(guard, bool) else "–",
    ]


def _band(group: Rows, kind: str) -> Child:
    rows = [row for row in group if row.get("arm_kind") == kind]
    found = spread(row.get("refusal_probability") for row in rows)
    if found is None:
        return "–"
    low, middle, high, n = found
    return linked(f"{plain(middle)} [{plain(low)}, {plain(high)}], {n} directions", rows[0])
