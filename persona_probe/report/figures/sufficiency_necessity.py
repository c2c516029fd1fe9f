"""Enough by itself? Needed at all? Two questions, two axes."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, nothing_measured, points, spread
from persona_probe.report.estimates import estimate, in_words, sample_sizes
from persona_probe.report.palette import FAINT, GREY, colours_for, label, persona_symbols
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

HALF = 0.5
THINNEST = 0.006  # half the width of a band that would have none


def sufficiency_necessity(
    rows: list[dict[str, Any]], colours: Mapping[str, str] | None = None
) -> "go.Figure":
    """Effect reproduced by adding the direction, against effect lost by removing it.

    Args:
        rows: `persona`, `arm_kind` steered with `sufficiency` and `necessity` (estimates), or a
            control's kind with either of them; controls draw grey bands.
        colours: persona → colour.
    """
    own = [row for row in rows if row.get("arm_kind") == "steered"]
    controls = [row for row in rows if row.get("arm_kind") != "steered"]
    colours = colours_for(own, colours)
    pairs = [(estimate(r.get("sufficiency")), estimate(r.get("necessity"))) for r in own]
    sizes = sample_sizes((value for pair in pairs for value in pair), "requests")
    figure = canvas("Enough by itself, and needed?", sizes, 440)
    if not any(x.defined and y.defined for x, y in pairs):
        return nothing_measured(figure)
    for key, shape in (("sufficiency", "x"), ("necessity", "y")):
        found = spread(row.get(key) for row in controls)
        if found is not None:
            thin = max(0.0, THINNEST - (found[2] - found[0]) / 2)
            ends = {f"{shape}0": found[0] - thin, f"{shape}1": found[2] + thin}
            look = {"fillcolor": FAINT, "line_width": 0, "layer": "below"}
            (figure.add_vrect if shape == "x" else figure.add_hrect)(**ends, **look)
    symbols = persona_symbols(colours)
    for row, (across, up) in zip(own, pairs, strict=True):
        if across.defined and up.defined:
            name = str(row.get("persona"))
            style = {"color": colours[name], "symbol": symbols[name]}
            _point(figure, row, across, up, style)
    for add in (figure.add_vline, figure.add_hline):
        add(HALF, line={"color": GREY, "width": 1, "dash": "dot"})
    low, high = _limits([value for pair in pairs for value in pair])
    _quadrants(figure, low, high)
    figure.update_xaxes(range=[low, high], title="share of the effect that adding it reproduces")
    figure.update_yaxes(range=[low, high], title="share that removing it takes away")
    return figure


def _point(
    figure: "go.Figure",
    row: dict[str, Any],
    across: Estimate,
    up: Estimate,
    style: dict[str, str],
) -> None:
    name = label(row.get("persona"))
    trace = points([up.value], [across], name=name, rows=[row], marker={"size": 11} | style)
    if not math.isnan(up.low) and not math.isnan(up.high):
        trace.error_y = {
            "type": "data", "symmetric": False, "array": [up.high - up.value],
            "arrayminus": [up.value - up.low], "thickness": 1.4, "width": 0,
            "color": style["color"],
        }  # fmt: skip
    trace.text = [f"{name}<br>reproduces {in_words(across)}<br>takes away {in_words(up)}"]
    figure.add_trace(trace)


def _limits(values: list[Estimate]) -> tuple[float, float]:
    """Both axes alike, from 0 to 1 at least, with room for every interval."""
    ends = [v for e in values if e.defined for v in (e.value, e.low, e.high) if v == v]
    return min(-0.1, min(ends) - 0.05), max(1.1, max(ends) + 0.05)


def _quadrants(figure: "go.Figure", low: float, high: float) -> None:
    corners = {
        (high, high): "enough and needed",
        (high, low): "enough, not needed",
        (low, high): "needed, not enough",
        (low, low): "neither",
    }
    for (x, y), text in corners.items():
        figure.add_annotation(
            x=x, y=y, text=f"<i>{text}</i>", showarrow=False, font={"size": 11, "color": GREY},
            xanchor="right" if x == high else "left", yanchor="top" if y == high else "bottom",
        )  # fmt: skip
