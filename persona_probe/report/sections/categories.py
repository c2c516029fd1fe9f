"""Effect per category: trained on, never trained on, and kept out altogether."""

from persona_probe.report.estimates import estimate, number
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, join, paragraph
from persona_probe.report.palette import TIERS, Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import MODELS, category_rows


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
        ]
    )


def _numbers(rows: dict[str, Rows]) -> Markup | None:
    lines: list[list[Child]] = []
    for persona, own in rows.items():
        seen = {str(row["category"]): str(row["tier"]) for row in own}
        for category, tier in sorted(seen.items(), key=lambda item: (item[1], item[0])):
            cells = [_cell([r for r in own if r["category"] == category], kind) for kind in MODELS]
            if any(cells):
                group = TIERS.get(
                    tier, "should be helped: refused" if tier == "permitted" else tier
                )
                lines.append([title_of(persona), title_of(category), group, *cells])
    head = ("Persona", "Category", "Finetuning", *(kind_of(kind).words for kind in MODELS))
    return numbers_table(head, lines)


def _cell(rows: list[Row], kind: str) -> Child:
    return [number(estimate(row["safe"]), row) for row in rows if row["arm_kind"] == kind]
