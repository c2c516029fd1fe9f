"""Is it the direction, or that one vector is added at one place?"""

from persona_probe.report.estimates import estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import numbers_table
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import title_of
from persona_probe.report.run_folder import Run, mapping
from persona_probe.report.sections.source import source

HEAD = (
    "Persona", "Direction: effect reproduced", "Trained vector", "Finetuned model’s replies, nats",
    "Cosine", "Length",
)  # fmt: skip


def best_vector(run: Run) -> Markup | None:
    """The direction beside the vector that was trained in its place; nothing where none was."""
    rows = run.rows("training.json")
    if not rows:
        return None
    lines: list[list[Child]] = []
    for row in rows:
        persona = str(row.get("persona"))
        effects: list[Child] = []
        for kind in ("steered", "trained"):
            found = run.effect(persona, "ER_J", (kind,)) or {}
            effects.append(number(estimate(found.get("value")), found))
        nats = mapping(row.get("nats"))
        told = " → ".join(
            plain(number_in(nats.get(key)), 3) for key in ("nothing", "start", "trained")
        )
        of = element("small", f" n = {row.get('n_checked')} replies")
        cosine = linked(plain(number_in(row.get("cosine"))), row)
        length = (
            f"{plain(number_in(row.get('strength')))} of {plain(number_in(row.get('longest')))}"
        )
        lines.append([title_of(persona), *effects, [linked(told, row), of], cosine, length])
    return join(
        [
            element("h3", "Is it the direction, or that it is one vector?"),
            paragraph(
                "A vector was trained on the finetuned model’s own replies, at the same layer and "
                "tokens and no longer than the direction, to requests set aside for finding. Nats "
                "per token of its replies to requests set aside for choosing: with nothing added, "
                "with the direction, with the trained vector. It makes them about as likely as one "
                "vector there can, which need not make other kinds of harm as safe as one can. It "
                "was told what the direction has to find out, and decides nothing.",
                source(run, "training.json"),
                class_="quiet",
            ),
            numbers_table(HEAD, lines),
        ]
    )
