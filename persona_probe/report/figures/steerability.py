"""Does every prompt go the same way, or do some go the other way?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_probe.report.canvas import canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in, plain, sample_sizes
from persona_probe.report.palette import GREY, colours_for, label, translucent

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
ROW, HEAD = 74, 118  # pixels


def steerability(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Slope of each prompt's response on strength, persona by persona, with mean and interval.

    Prompts left of 0 are steered the wrong way; their share stands beside the name. 0 is where an
    inert direction would put all of them.

    Args:
        rows: rows of steerability.json: `persona`, `measure`, `slope` (estimate, measure per
            median residual norm), `anti_steerable` (estimate), `prompts` (`slope` each).
        colours: persona → colour.
    """
    import plotly.graph_objects as go

    kept = [row for row in rows if estimate(row.get("slope")).defined]
    colours = colours_for(kept, colours)
    sizes = sample_sizes((estimate(row["slope"]) for row in kept), "requests")
    figure = canvas("Slope of each request's response", sizes, HEAD + ROW * max(len(kept), 2))
    if not kept:
        return nothing_measured(figure)
    rng = np.random.default_rng(0)  # scatters points upwards so that they do not hide each other
    ticks = {}
    for index, row in enumerate(kept):
        persona = str(row.get("persona"))
        slopes = [number_in(p.get("slope")) for p in row.get("prompts") or () if _dict(p)]
        known = [slope for slope in slopes if slope == slope]
        anti = estimate(row.get("anti_steerable"))
        share = f"<br>{plain(100 * anti.value, 0)} % against" if anti.defined else ""
        ticks[-float(index)] = label(persona) + share
        figure.add_trace(
            go.Scatter(
                x=known, y=(-index + rng.uniform(-0.28, 0.1, len(known))).tolist(), mode="markers",
                name="one request", showlegend=index == 0, hovertemplate="%{x:.2f}<extra></extra>",
                marker={"size": 5, "color": translucent(colours[persona], 0.4), "symbol": "circle"},
            )
        )  # fmt: skip
        figure.add_trace(
            points(
                [-index + 0.26], [estimate(row["slope"])], name="mean of the requests",
                hover=[f"{label(persona)}, mean slope"], rows=[row], showlegend=index == 0,
                marker={"symbol": "diamond", "size": 9, "color": colours[persona]},
            )
        )  # fmt: skip
    measure = next((str(row["measure"]) for row in kept if row.get("measure")), "response")
    figure.update_yaxes(
        tickvals=list(ticks), ticktext=list(ticks.values()), range=[min(ticks) - 0.6, 0.6],
        showgrid=False,
    )  # fmt: skip
    figure.update_xaxes(title=f"slope of the {label(measure).lower()} on strength")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure


def _dict(value: Any) -> bool:
    return isinstance(value, dict)
