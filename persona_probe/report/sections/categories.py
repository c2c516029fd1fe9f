"""Effect per category: trained on, never trained on, and kept out altogether."""

from persona_probe.report.canvas import spread
from persona_probe.report.category_axis import categories_of, heading_of
from persona_probe.report.estimates import estimate, number, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import CONTROLS, MODELS, category_rows, reproduced_rows


def categories(run: Run, colours: Colours) -> Markup:
    """One panel per persona, every category a line."""
    rows = {persona: category_rows(run, persona) for persona in run.personas}
    figures = [FIGURES["category_effects"](own, colours) for own in rows.values() if own]
    trained = sorted(title_of(name) for name, tier in run.tiers.items() if tier == "T0")
    which = f" ({' and '.join(name.lower() for name in trained)})" if trained else ""
    return join(
        [
            paragraph(
                f"Finetuning saw a few kinds of harm only{which}. If what it changed is the "
                "model's character, safety shows in the others as well; and if the direction "
                "carries that character, so does steering. The last line guards against a model "
                "that simply refuses everything: there, a low share is good."
            ),
            exhibit(
                figures,
                [
                    "Share of replies that refuse or redirect safely, with 95 % intervals over "
                    "families of prompts; broken text counts as unsafe. Grey strokes: 5th to 95th "
                    "percentile over random directions. Ablated: the finetuned model with the "
                    "direction taken out of its activations. Held out of everything: kinds of "
                    "harm used neither to find the direction nor to choose its strength.",
                    source(run, "arms.json", "replies.jsonl"),
                ],
                _numbers(rows),
                neutral_key=True,
                notice=absences(run, "arms.json"),
            ),
            _reproduced(run, colours),
        ]
    )


def _reproduced(run: Run, colours: Colours) -> Markup:
    """ER in each category: the share of finetuning's effect there, which shares alone hide."""
    rows = {persona: reproduced_rows(run, persona) for persona in run.personas}
    figures = [FIGURES["category_reproduced"](own, colours) for own in rows.values() if own]
    drawn = any(row["arm_kind"] in CONTROLS for own in rows.values() for row in own)
    band = (
        "Grey strokes: 5th to 95th percentile over random directions, which were asked requests "
        "of untrained kinds only; none where the steered model has no number."
        if drawn
        else "This run holds no numbers of random directions per kind of harm."
    )
    return join(
        [
            element("h3", "The share of finetuning’s effect, kind by kind"),
            exhibit(
                figures,
                [
                    "Gain in safe replies through steering over the gain through finetuning on "
                    "the same requests, with 95 % intervals over families of prompts; broadly "
                    "finetuned models were trained on every kind. Undefined where the interval "
                    "of finetuning’s own gain contains 0 or cannot be had. " + band,
                    source(run, "effects.json"),
                ],
                _shares(rows),
                neutral_key=True,
                notice=absences(run, "effects.json"),
            ),
        ]
    )


def _shares(rows: dict[str, Rows]) -> Markup | None:
    lines: list[list[Child]] = []
    for persona, own in rows.items():
        for category, tier in categories_of(own):
            here = [row for row in own if row["category"] == category]
            for scope in dict.fromkeys(row["scope"] for row in here):
                same = [row for row in here if row["scope"] == scope]
                steered = [
                    number(estimate(row["reproduced"]), row)
                    for row in same
                    if row["arm_kind"] == "steered"
                ]
                group, whole = heading_of(tier), title_of(scope or "–")
                who = [title_of(persona), title_of(category), group, whole]
                lines.append([*who, steered, _band(same)])
    head = ("Persona", "Category", "Finetuning", "Scope", "Effect reproduced", "Random directions")
    return numbers_table(head, lines)


def _band(rows: Rows) -> Child:
    band = spread(row["reproduced"] for row in rows if row["arm_kind"] in CONTROLS)
    if band is None:
        return element("span", "not measured", class_="absent")
    low, middle, high, n = band
    return [
        plain(middle),
        element("small", f"5–95 %: {plain(low)} to {plain(high)}"),
        element("small", f"{n} directions"),
    ]


def _numbers(rows: dict[str, Rows]) -> Markup | None:
    lines: list[list[Child]] = []
    for persona, own in rows.items():
        seen = {str(row["category"]): str(row["tier"]) for row in own}
        for category, tier in sorted(seen.items(), key=lambda item: (item[1], item[0])):
            cells = [_cell([r for r in own if r["category"] == category], kind) for kind in MODELS]
            if any(cells):
                lines.append([title_of(persona), title_of(category), heading_of(tier), *cells])
    head = ("Persona", "Category", "Finetuning", *(kind_of(kind).words for kind in MODELS))
    return numbers_table(head, lines)


def _cell(rows: list[Row], kind: str) -> Child:
    return [number(estimate(row["safe"]), row) for row in rows if row["arm_kind"] == kind]
