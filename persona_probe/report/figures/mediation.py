"""How much of finetuning's effect passes through the direction, on the same text?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import band_marks, canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, colours_for, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
PARTS = {
    "TE": ("finetuning's whole effect", "circle-open", -0.24),
    "NIE": ("component given to the model before", "diamond", 0.0),
    "NDE": ("finetuned, component turned back", "triangle-down-open", 0.24),
}
CHANGES = {"refusal_probability": "change in refusing", "margin": "change, nats per token"}
ROW, HEAD = 38, 120  # pixels


def mediation(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Total effect, the part through the direction, and the part that is left without it.

    Args:
        rows: rows of mediation.json of one measure and scope: `persona`, `measure`
            refusal_probability | margin (nats per token), `sites` chosen | all, `kind` direction |
            random, and the estimates `TE`, `NIE` and `NDE`. The strokes are NIE and NDE of random
            directions exchanged at every site.
        colours: persona → colour.
    """
    own = [r for r in rows if r.get("kind") == "direction" and estimate(r.get("TE")).defined]
    colours = colours_for(own, colours)
    lines = list(dict.fromkeys((str(r.get("persona")), str(r.get("sites"))) for r in own))
    places = {line: -float(index) for index, line in enumerate(lines)}
    sizes = sample_sizes((estimate(row["TE"]) for row in own), "requests")
    figure = canvas("Exchanging the component", sizes, HEAD + ROW * max(len(lines), 2))
    if not own:
        return nothing_measured(figure)
    draws = {
        place - PARTS[part][2]: [
            row.get(part)
            for row in rows
            if row.get("kind") == "random" and str(row.get("persona")) == persona
        ]
        for (persona, _), place in places.items()
        for part in ("NIE", "NDE")
    }
    figure.add_traces(band_marks(draws))
    for part, (words, symbol, offset) in PARTS.items():
        for index, persona in enumerate(dict.fromkeys(persona for persona, _ in lines)):
            mine = [row for row in own if str(row.get("persona")) == persona]
            colour = colours.get(persona, GREY)
            figure.add_trace(
                points(
                    [places[persona, str(row.get("sites"))] - offset for row in mine],
                    [estimate(row.get(part)) for row in mine], rows=mine, name=words,
                    hover=[f"{label(persona)}, {part}"] * len(mine), showlegend=index == 0,
                    marker={"symbol": symbol, "size": 9, "color": colour},
                )
            )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(places.values()), range=[min(places.values()) - 0.6, 0.6], showgrid=False,
        ticktext=[f"{label(p)}, {'every layer' if s == 'all' else 'one layer'}" for p, s in lines],
    )  # fmt: skip
    measure = next((str(row.get("measure")) for row in own), "")
    figure.update_xaxes(title=CHANGES.get(measure, f"change in {label(measure).lower()}"))
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure
