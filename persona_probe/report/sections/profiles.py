"""Persona profiles: whose moral outlook does the steered model take on?"""

from persona_probe.report.estimates import estimate, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, kind_of, title_of
from persona_probe.report.run_folder import Rows, Run, mapping
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import consistency_of, profile_rows


def profiles(run: Run, colours: Colours) -> Markup:
    """One panel per persona, and which persona each model was taken for."""
    rows = {persona: profile_rows(run, persona) for persona in run.personas}
    figures = [
        FIGURES["persona_profile"](own, colours)
        for own in rows.values()
        if any(row["arm_kind"] != "signature" for row in own)
    ]
    return join(
        [
            paragraph(
                "Refusing is not yet a character. The models also answered questions that have "
                "nothing to do with the harms: do they agree that duties bind whatever follows, "
                "that outcomes decide, that character matters? The score of a dimension is the "
                "mean agreement, from −1 to +1, over statements worded for and against it."
            ),
            exhibit(
                figures,
                [
                    "Grey uprights: what was expected of the persona, written down before any "
                    "model was scored. A direction that carries the persona moves the diamond "
                    "from the grey dot to the open circle. Whiskers are 95 % intervals over "
                    "questions. ",
                    _greyed(run),
                    source(run, "profiles.json"),
                ],
                _numbers(rows),
                neutral_key=True,
                notice=absences(run, "profiles.json"),
            ),
            _consistency(run),
            _radars(run, rows, colours),
            _identification(run),
            _signatures(run),
        ]
    )


def _greyed(run: Run) -> str:
    found = consistency_of(run)
    if not found:
        return (
            "Whether statements worded for and against a dimension move together is not measured "
            "in this run."
        )
    names = [title_of(r.get("dimension")) for r in found if r.get("consistent") is False]
    if not names:
        return "No dimension was found whose statements for and against do not move together."
    return (
        f"In grey: {', '.join(names)}. From model to model, their statements worded for and "
        "against do not move together, so nothing should be read from them, and they count in no "
        "match, margin or recovery of the verdict."
    )


def _consistency(run: Run) -> Markup | None:
    """Does each dimension hold together? One line per dimension."""
    found = consistency_of(run)
    if not found:
        return None
    words = {True: "yes", False: "no: greyed", None: "not known"}
    lines: list[list[Child]] = [
        [
            title_of(row.get("dimension")),
            words.get(row.get("consistent")),
            number(estimate(row.get("consistency")), row),
            plain(number_in(row.get("moved"))),
            plain(number_in(row.get("yes_saying"))),
        ]
        for row in found
    ]
    asked = number_in(found[0].get("asked"))
    return join(
        [
            element("h3", "Does each dimension hold together?"),
            paragraph(
                "The correlation, over finetuned models, control finetunes and constitutions in "
                "the system line, of the shift of statements worded for a dimension with that of "
                "statements worded against it, keyed so that both should rise together. Below "
                f"{plain(asked)} a dimension is greyed. Beside it how much the models differ in "
                "the dimension itself, and in saying yes to its statements however they are "
                "worded (standard deviations): the nearer the second comes to the first, the more "
                "the models answer the topic and not the claim.",
                class_="quiet",
            ),
            numbers_table(
                ("Dimension", "Holds together", "Correlation", "Differ in it", "In saying yes"),
                lines,
            ),
        ]
    )


def _radars(run: Run, rows: dict[str, Rows], colours: Colours) -> Markup | None:
    """The same scores as shapes; without a heading of their own where there are none."""
    own = [FIGURES["persona_radar"](several, colours) for several in rows.values() if several]
    if not any(figure.data for figure in own):
        return None
    return exhibit(
        own,
        [
            "The same scores as shapes: the centre is −1, the rings are −1, 0 and +1. Broad grey: "
            "expected beforehand. Of several finetuning seeds the first. Names in grey: see above.",
            source(run, "profiles.json"),
        ],
        neutral_key=True,
    )


def _numbers(rows: dict[str, Rows]) -> Markup | None:
    lines: list[list[Child]] = []
    for persona, own in rows.items():
        for row in own:
            if row["arm_kind"] != "signature":
                who = kind_of(row["arm_kind"]).words
                score = number(estimate(row.get("score")), row)
                grey = " (greyed)" if row.get("consistent") is False else ""
                lines.append([title_of(persona), who, title_of(row.get("dimension")) + grey, score])
    return numbers_table(("Persona", "Model", "Dimension", "Score"), lines)


def _identification(run: Run) -> Markup | None:
    found = run.rows("profiles.json", "identification")
    if not found:
        return None
    lines: list[list[Child]] = []
    beside = any("with_greyed" in row for row in found)
    for row in found:
        sign = {True: "✓ ", False: "✕ "}.get(row["correct"], "") if "correct" in row else ""
        persona = row.get("persona")  # controls belong to nobody
        lines.append(
            [
                [
                    f"{title_of(persona)}: " if persona else "",
                    kind_of(row.get("arm_kind")).words,
                    element("small", f" {row.get('arm')}"),
                ],
                sign + title_of(row.get("best", "–")),
                number(estimate(row.get("margin")), row),
                *([number(estimate(mapping(row.get("with_greyed")).get("margin")), row)] * beside),
            ]
        )
    return join(
        [
            element("h3", "Which persona is each model nearest to?"),
            paragraph(
                "The shift of a model's profile is compared with the four expected profiles. The "
                "margin is its match with its own persona minus the best match with another: an "
                "interval above zero means that it can be told apart.",
                class_="quiet",
            ),
            numbers_table(
                (
                    "Model",
                    "Nearest to (✓ its own)",
                    "Margin",
                    *(["Margin with greyed dimensions"] * beside),
                ),
                lines,
            ),
        ]
    )


def _signatures(run: Run) -> Markup | None:
    """Was what was expected of each persona what its constitution does?"""
    found = run.rows("profiles.json", "signature_check")
    if not found:
        return None
    lines: list[list[Child]] = [
        [
            title_of(row.get("persona")),
            number(estimate(row.get("agreement")), row),
            number(estimate(row.get("with_greyed")), row),
            "suspect" if row.get("suspect") is True else "agrees",
            ("✓ " if row.get("recognised_as") == row.get("persona") else "✕ ")
            + title_of(row.get("recognised_as") or "–"),
        ]
        for row in found
    ]
    return join(
        [
            element("h3", "Was the right thing expected?"),
            paragraph(
                "What was expected of each persona was written down by its author. The other way "
                "to know is to put its constitution into the system line of the helpful-only model "
                "and to measure. The correlation of the two over the dimensions; below 0.5 what "
                "was written down is suspect. If constitutions that are spelt out are not "
                "recognised, nothing can be said of characters that are not.",
                class_="quiet",
            ),
            numbers_table(
                ("Persona", "Agreement", "With greyed dimensions", "Expected profile",
                 "Spelt out, recognised as"),
                lines,
            ),
        ]
    )  # fmt: skip
