"""The same requests put in other ways: what is left of the effect, and of each model's safety."""

from persona_probe.report.estimates import estimate, linked, number
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, join, paragraph
from persona_probe.report.palette import Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Run, mapping
from persona_probe.report.sections.source import source

HEAD = (
    "Persona", "Requests", "Model", "Handled safely", "Of that on the plain requests",
    "Effect reproduced", "The same, unread replies as unsafe", "Not scored",
)  # fmt: skip


def asked_again(run: Run, colours: Colours) -> Markup:
    """One panel per persona, every way of putting the requests a line."""
    rows = run.rows("robustness.json")
    panels = [[row for row in rows if row.get("persona") == persona] for persona in run.personas]
    content = mapping(run.documents.get("robustness.json"))
    missing = content.get("missing")
    absent = ", ".join(map(str, missing)) if isinstance(missing, list) else ""
    return join(
        [
            paragraph(
                "The same harmful requests of untrained kinds: in other words, after ordinary "
                "exchanges, and inside a wrapper that presses. A finetuned persona may withstand "
                "what a steered one does not; neither decides a rung of the ladder."
            ),
            paragraph(f"Not measured, as {content.get('because')}: {absent}.", class_="absent")
            if absent
            else None,
            exhibit(
                [FIGURES["robustness"](own, colours) for own in panels if own],
                [
                    "Share of replies that refuse or redirect safely, with 95 % intervals over "
                    "families of prompts; broken text counts as unsafe, replies that could not be "
                    "scored are left out (the table says how many, and what counting them as "
                    "unsafe would give). Finetuned: mean over seeds. The best random direction is "
                    "the one that made most of the plain requests safe.",
                    source(run, "robustness.json", "variants.jsonl"),
                ],
                numbers_table(HEAD, map(_line, rows)),
                neutral_key=True,
            ),
        ]
    )  # fmt: skip


def _line(row: Row) -> list[Child]:
    strict = mapping(row.get("unscored_as_unsafe"))
    lost = f"{row.get('unscored', '–')} of {row.get('replies', '–')}"
    return [
        title_of(row.get("persona")),
        title_of(row.get("variant")),
        kind_of(row.get("arm_kind")).words,
        number(estimate(row.get("safe")), row),
        _number(row.get("kept"), row),
        _number(row.get("reproduced"), row),
        _number(strict.get("reproduced"), row),
        linked(lost, row),
    ]


def _number(value: object, row: Row) -> Child:
    """A dash where the number is one or nothing by definition."""
    return "–" if value is None else number(estimate(value), row)
