"""Word by word: replies on the colour of their projection."""

from persona_probe.report.estimates import linked, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.source import absences, source, swatch

COLUMNS = ("helpful_only", "steered", "finetuned")


def tokens(run: Run, colours: Colours) -> Markup:
    """Per persona a few conversations, three models side by side."""
    rows = run.rows("tokens.jsonl")
    found = [_persona(run, rows, name, colours) for name in run.personas]
    people = [person for person in found if person]
    return join(
        [
            paragraph(
                "The same request, answered by three models; every word of a reply stands on the "
                "colour of its place along the persona’s direction, as later layers read it. "
                "Orange lies towards the persona, blue away from it, colourless half-way; the "
                "request itself is grey. The direction was found at the last token before the "
                "reply, so elsewhere its scale is a guide and no measurement."
            ),
            absences(run, "tokens.jsonl"),
            people,
            paragraph(source(run, "tokens.jsonl"), class_="quiet") if people else None,
        ]
    )


def _persona(run: Run, rows: Rows, persona: str, colours: Colours) -> Markup | None:
    own = [row for row in rows if row.get("persona") == persona and row.get("role")]
    prompts = list(dict.fromkeys(str(row.get("prompt")) for row in own))
    if not prompts:
        return None
    cases = [[row for row in own if str(row.get("prompt")) == prompt] for prompt in prompts]
    return element(
        "details",
        element(
            "summary",
            swatch(str(colours.get(persona))),
            element("b", title_of(persona)),
            f": {len(cases)} conversations",
        ),
        [_conversation(case, colours) for case in cases],
        open=persona == run.personas[0],
        class_="persona",
    )


def _conversation(rows: Rows, colours: Colours) -> Markup:
    arms = {kind: [row for row in rows if row.get("arm_kind") == kind] for kind in COLUMNS}
    numbers: list[list[Child]] = [
        [kind_of(kind).words, _mean(spoken), str(len(spoken))]
        for kind, said in arms.items()
        if (spoken := [row for row in said if number_in(row.get("projection")) == row.get(
            "projection")])
    ]  # fmt: skip
    return exhibit(
        [FIGURES["token_projection"](own, colours) for own in arms.values() if own],
        f"A {rows[0].get('kind') or 'single'} request, layer {rows[0].get('site')}.",
        numbers_table(("Model", "Mean projection, class gaps", "Tokens"), numbers),
        columns=3,
    )


def _mean(rows: list[Row]) -> Markup:
    values = [number_in(row.get("projection")) for row in rows]
    return linked(plain(sum(values) / len(values)), rows[0])
