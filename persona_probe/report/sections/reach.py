"""Projectability and transfer: does the effect reach other harms, and is it this persona's own?"""

from persona_probe.report.estimates import estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import TIERS, Colours, kind_of, title_of
from persona_probe.report.run_folder import Rows, Run, mapping
from persona_probe.report.sections.robustness import asked_again
from persona_probe.report.sections.source import source

MEASURES = {
    "profile": "correlation of the profile’s change with what was expected of each persona",
    "safety": "share of each persona’s finetuning effect in safe replies",
}
DECISIONS = "decisions"
RANDOM = ("random", "covariance", "shuffled")
SHOWN = ("finetuned", "broad", "steered", "trained", "system_prompt", "placebo", "refusal_only")


def reach(run: Run, colours: Colours) -> Markup:
    """Gains tier by tier, and every direction against every persona."""
    return join(
        [
            paragraph(
                "Finetuning saw two kinds of harm. A change of character shows just as much in "
                "kinds that were never trained on, and in kinds that were kept out of everything "
                "used to find and to choose the direction; a learnt habit stays where it was "
                "learnt."
            ),
            _projectability(run, colours),
            element("h3", "In other words, later, and under pressure"),
            asked_again(run, colours),
            element("h3", "Is the effect this persona’s own?"),
            _transfer(run, colours),
        ]
    )


def _projectability(run: Run, colours: Colours) -> Markup:
    gains = [
        row
        for row in run.rows("tiers.json", "gains")
        if row.get("arm_kind") in SHOWN and row.get("measure") != DECISIONS
    ]
    panels = [[row for row in gains if row.get("persona") == persona] for persona in run.personas]
    lines: list[list[Child]] = [
        [
            title_of(row.get("persona")),
            kind_of(row.get("arm_kind")).words,
            TIERS.get(str(row.get("tier")), str(row.get("tier"))),
            number(estimate(row.get("value")), row),
        ]
        for row in gains
    ]
    return join(
        [
            exhibit(
                [FIGURES["projectability"](rows, colours) for rows in panels if rows],
                [
                    "Share of harmful requests handled safely, minus that of the helpful-only "
                    "model, tier by tier from the harms trained on to morality outside safety. "
                    "Level lines project. Grey: finetunes that have no persona in them.",
                    source(run, "tiers.json"),
                ],
                numbers_table(("Persona", "Model", "Kind of harm", "Gain"), lines),
                neutral_key=True,
            ),
            _ratios(run),
            _everyday(run),
        ]
    )


def _everyday(run: Run) -> Markup | None:
    """Decisions that harm nobody, where no requests were made about them."""
    found = [r for r in run.rows("tiers.json", "gains") if r.get("measure") == DECISIONS]
    if not found:
        return None
    lines: list[list[Child]] = []
    beside = any("without_greyed" in row for row in found)
    for row in (row for row in found if row.get("arm_kind") in SHOWN):
        gain: list[Child] = [number(estimate(row.get("value")), row)]
        more: list[Child] = [number(estimate(row.get("without_greyed")), row)] * beside
        names = [title_of(row.get("persona")), kind_of(row.get("arm_kind")).words]
        lines.append([*names, *gain, *more])
    for persona in run.personas:
        drawn = [
            number_in(mapping(row.get("value")).get("value"))
            for row in found
            if row.get("arm_kind") in RANDOM and row.get("persona") == persona
        ]
        if drawn:
            words = f"{plain(min(drawn))} to {plain(max(drawn))} ({len(drawn)} directions)"
            random = [title_of(persona), "random directions, from least to most", words]
            lines.append([*random, *([""] * beside)])
    return join(
        [
            element("h3", "Everyday decisions"),
            paragraph(
                "Morality outside safety (T3) was not asked about in requests. In its place, how "
                "much likelier the models became to decide everyday questions as the persona "
                "should, where the persona takes a side: a change of a probability, over "
                "forced choices, not a share of safe replies.",
                class_="quiet",
            ),
            numbers_table(
                ("Persona", "Model", "Likelier by", *(["Without greyed dimensions"] * beside)),
                lines,
            ),
        ]
    )


def _ratios(run: Run) -> Markup | None:
    rows = [row for row in run.rows("tiers.json", "ratios") if row.get("arm_kind") in SHOWN]
    if not rows:
        return None
    lines: list[list[Child]] = [
        [
            title_of(row.get("persona")),
            kind_of(row.get("arm_kind")).words,
            title_of(row.get("metric")),
            number(estimate(row.get("value")), row),
        ]
        for row in rows
    ]
    return element(
        "details",
        element("summary", f"Ratios: retention, narrow to broad, steered retention ({len(rows)})"),
        numbers_table(("Persona", "Model", "Ratio", "Value"), lines),
        class_="long",
    )


def _transfer(run: Run, colours: Colours) -> Markup:
    rows = run.rows("transfer.json")
    panels = {m: [row for row in rows if row.get("measure") == m] for m in MEASURES}
    lines: list[list[Child]] = [
        [
            title_of(row.get("direction")),
            title_of(row.get("target")),
            title_of(row.get("measure")),
            number(estimate(row.get("value")), row),
        ]
        for row in rows
    ]
    return join(
        [
            exhibit(
                [FIGURES["transfer_matrix"](own, colours) for own in panels.values() if own],
                [
                    "Down: whose direction is added to the helpful-only model. Across: whose "
                    "effect is looked for. ",
                    "; ".join(f"{title_of(m)}: {words}" for m, words in MEASURES.items()),
                    ". If directions are personal, the diagonal stands out; if every row looks "
                    "alike, any of the directions will do.",
                    source(run, "transfer.json"),
                ],
                numbers_table(("Direction", "Looked for", "Measure", "Value"), lines),
            ),
            _dominance(run, [m for m, own in panels.items() if own]),
        ]
    )


def _dominance(run: Run, measures: list[str]) -> Markup | None:
    content = mapping(mapping(run.documents.get("transfer.json")).get("dominance"))
    found: Rows = [mapping(content.get(measure)) | {"of": measure} for measure in measures]
    sentences = [
        [
            f"{title_of(row['of'])}: own minus other personas ",
            linked(plain(number_in(row.get("value"))), row),
            ", exact permutation p ",
            linked(plain(number_in(row.get("p")), 3), row),
            f" (cannot be below {plain(number_in(row.get('floor')), 3)}). ",
        ]
        for row in found
        if number_in(row.get("value")) == number_in(row.get("value"))
    ]
    return paragraph(sentences, class_="quiet") if sentences else None
