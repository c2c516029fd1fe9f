"""While training: when does the finetuned model move along directions that were there before?"""

from persona_probe.report.estimates import estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import PROJECTION, Row, Rows, Run
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import usual_layer

TITLE = "While training"


def training(run: Run, colours: Colours) -> Markup:
    """One figure per layer that was watched; of a study's run the usual layer if it was."""
    rows = run.rows(PROJECTION)
    sites = list(dict.fromkeys(row.get("site") for row in rows))
    usual = [site for site in sites if str(site) == usual_layer(run)]
    kept = [[row for row in rows if row.get("site") == site] for site in usual or sites]
    return join(
        [
            paragraph(
                "Between steps of finetuning the same prompts, without replies, were "
                "read by the model as it stood. How far had it moved along each direction, from "
                "where it was before the first step? The unit is the standard deviation that the "
                "prompts had along the direction then."
            ),
            exhibit(
                [FIGURES["training_projection"](own, colours) for own in kept],
                [
                    "Lines: mean over prompts; bands around them: 95 % intervals over families of "
                    "prompts. Grey: where the middle 95 % of random directions lie. Below: the "
                    "training loss.",
                    source(run, PROJECTION),
                ],
                _numbers(kept),
                notice=absences(run, PROJECTION),
            ),
        ]
    )


def _numbers(panels: list[Rows]) -> Markup | None:
    """Where each direction ended; the steps between are in the file."""
    lines: list[list[Child]] = []
    for rows in panels:
        last: dict[str, Row] = {}
        for row in sorted(rows, key=_step):
            last[str(row.get("direction"))] = row
        for name, row in last.items():
            value = estimate(row | {"value": row.get("mean")})
            step = linked(plain(_step(row), 0), row)
            lines.append([title_of(name), title_of(row.get("site")), step, number(value, row)])
    return numbers_table(("Direction", "Layer", "Step", "Moved by, sd"), lines)


def _step(row: Row) -> float:
    step = number_in(row.get("step"))
    return step if step == step else -1.0
