"""How alike are the personas' directions?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, nothing_measured
from persona_probe.report.estimates import estimate, plain, sample_sizes
from persona_probe.report.palette import label

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Vermillion for opposed, blue for alike, clear in between so that it suits any page.
SCALE = [
    [0.0, "rgba(213, 94, 0, 0.38)"],
    [0.5, "rgba(133, 138, 147, 0.08)"],
    [1.0, "rgba(0, 114, 178, 0.38)"],
]


def persona_cosines(
    rows: list[dict[str, Any]], colours: Mapping[str, str] | None = None
) -> "go.Figure":
    """Heat map of cosines between directions, with the number (and its interval) in each cell.

    Args:
        rows: one per cell: `a`, `b` (personas), `cosine` (number or estimate), `site`.
        colours: unused; cells have no persona's colour. Accepted because every figure is called
            alike.
    """
    import plotly.graph_objects as go

    del colours
    names = list(dict.fromkeys(str(row[key]) for key in ("a", "b") for row in rows if key in row))
    cells = {(str(row.get("a")), str(row.get("b"))): estimate(row.get("cosine")) for row in rows}
    sites = sorted({str(row["site"]) for row in rows if row.get("site") is not None})
    sizes = sample_sizes(cells.values(), "prompts")
    where = f"layer {', '.join(sites)}" if sites else ""
    subtitle = ", ".join(part for part in (where, sizes) if part)
    figure = canvas("Cosine between directions", subtitle, 150 + 62 * len(names))
    known = {pair: value for pair, value in cells.items() if value.defined}
    if not known:
        return nothing_measured(figure)
    titles = [label(name) for name in names]
    figure.add_trace(
        go.Heatmap(
            x=titles, y=titles, zmin=-1, zmax=1, colorscale=SCALE, showscale=False,
            xgap=3, ygap=3, hoverinfo="skip",
            z=[[known[a, b].value if (a, b) in known else None for b in names] for a in names],
        )
    )  # fmt: skip
    texts = []
    for value in known.values():
        bounds = value.low == value.low and value.high == value.high
        interval = f"<br>{plain(value.low)} to {plain(value.high)}" if bounds else ""
        texts.append(plain(value.value) + interval)
    figure.add_trace(
        go.Scatter(
            x=[label(b) for _, b in known], y=[label(a) for a, _ in known], text=texts,
            mode="text", showlegend=False, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=0 if len(names) < 4 else -30)
    return figure
