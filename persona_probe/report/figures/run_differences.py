"""What came out differently in two runs?"""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, colours_for, label, persona_symbols

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
ROW, HEAD = 46, 118  # pixels


def run_differences(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Differences of the main numbers, one run minus the other, persona by persona.

    Args:
        rows: `persona`, `metric` (its name in words), `change` (estimate, this run minus the
            other). The line at 0 is where a repetition of the same run would lie.
        colours: persona → colour.
    """
    kept = [row for row in rows if estimate(row.get("change")).defined and row.get("metric")]
    colours = colours_for(kept, colours)
    metrics = list(dict.fromkeys(str(row["metric"]) for row in kept))
    people = list(dict.fromkeys(str(row.get("persona")) for row in kept))
    places = {metric: -float(index) for index, metric in enumerate(metrics)}
    sizes = sample_sizes((estimate(row["change"]) for row in kept), "per difference")
    figure = canvas("This run minus the other", sizes, HEAD + ROW * max(len(metrics), 2))
    if not kept:
        return nothing_measured(figure)
    symbols = persona_symbols(colours)
    for number, persona in enumerate(people):
        mine = [row for row in kept if str(row.get("persona")) == persona]
        dodge = 0.17 * (number - (len(people) - 1) / 2)
        figure.add_trace(
            points(
                [places[str(row["metric"])] - dodge for row in mine],
                [estimate(row["change"]) for row in mine], rows=mine, name=label(persona),
                hover=[f"{label(persona)}, {label(row['metric'])}" for row in mine],
                marker={"symbol": symbols[persona], "size": 9, "color": colours[persona]},
            )
        )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(places.values()), ticktext=[escape(m, quote=False) for m in metrics],
        range=[min(places.values()) - 0.6, 0.6], showgrid=False,
    )  # fmt: skip
    figure.update_xaxes(title="difference")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure
