"""The shape of a character: all dimensions of the diagnostic round one centre."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona_probe.report.anchors import href
from persona_probe.report.canvas import GRID, canvas, chip, faded, nothing_measured
from persona_probe.report.estimates import estimate, in_words, number_in, sample_sizes
from persona_probe.report.palette import GREY, colours_for, kind_of, label, translucent

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
# Drawn as closed paths on cartesian axes: the report's plotly bundle has no polar traces.
DASHES = {"helpful_only": "solid", "finetuned": "dash", "steered": "solid"}
RINGS = (-1.0, 0.0, 1.0)
LABELLED = 1.16  # radius of the names, where a score of +1 has 1


def persona_radar(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Scores of one persona's models as closed lines, with what was expected beforehand.

    Args:
        rows: as for `persona_profile`: `arm_kind` helpful_only | finetuned | steered | signature,
            `persona`, `dimension`, `score` (estimate, -1 against to +1 for; of several seeds the
            first is drawn). The centre is -1, the rings are -1, 0 and +1; strokes across a line
            are 95 % intervals. Names of dimensions with `consistent` False are grey.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    people = list(dict.fromkeys(str(r["persona"]) for r in rows if r.get("persona") is not None))
    names = list(dict.fromkeys(str(r["dimension"]) for r in rows if r.get("dimension")))
    measured = [row for row in rows if row.get("arm_kind") in DASHES]
    values = [estimate(row.get("score")) for row in measured]
    title = ", ".join(chip(colours[name], label(name)) for name in people)
    sizes = sample_sizes(values, "questions per dimension")
    figure = canvas(title or "Persona", sizes, 430)
    if len(names) < 3 or not any(value.defined for value in values):
        return nothing_measured(figure)
    angles = {name: math.pi / 2 - 2 * math.pi * i / len(names) for i, name in enumerate(names)}
    _frame(figure, angles, {str(r.get("dimension")) for r in rows if r.get("consistent") is False})
    expected = [row for row in rows if row.get("arm_kind") == "signature"]
    _path(figure, expected, angles, "expected", {"color": GREY, "width": 6}, 0.4)
    for kind, dash in DASHES.items():
        mine = [row for row in measured if row.get("arm_kind") == kind]
        arms = list(dict.fromkeys(str(row.get("arm")) for row in mine))
        own = [row for row in mine if str(row.get("arm")) == (arms[0] if arms else "")]
        colour = colours[people[0]] if kind_of(kind).own and people else GREY
        width = 2.6 if kind == "steered" else 1.7
        line = {"color": colour, "width": width, "dash": dash}
        _path(figure, own, angles, kind_of(kind).words, line, 1.0, kind_of(kind).symbol)
        _intervals(figure, own, angles, colour)
    figure.update_xaxes(visible=False, range=[-1.75, 1.75], constrain="domain")
    figure.update_yaxes(visible=False, range=[-1.35, 1.35], scaleanchor="x")
    return figure


def _at(score: float, angle: float) -> tuple[float, float]:
    radius = (score + 1) / 2
    return radius * math.cos(angle), radius * math.sin(angle)


def _frame(figure: "go.Figure", angles: Mapping[str, float], doubtful: set[str]) -> None:
    """Rings, spokes, and the name of each dimension outside."""
    import plotly.graph_objects as go

    turns = [2 * math.pi * i / 72 for i in range(73)]
    rings: list[tuple[float, float] | None] = []
    for score in RINGS:
        rings += [*(_at(score, turn) for turn in turns), None]
    for angle in angles.values():
        rings += [_at(-1.0, angle), _at(1.0, angle), None]
    figure.add_trace(
        go.Scatter(
            x=[p[0] if p else None for p in rings], y=[p[1] if p else None for p in rings],
            mode="lines", line={"color": GRID, "width": 1}, hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    for name, angle in angles.items():
        x, y = LABELLED * math.cos(angle), LABELLED * math.sin(angle)
        side = "center" if abs(x) < 0.25 else ("left" if x > 0 else "right")
        text = label(name).replace(" ", "<br>")
        figure.add_annotation(
            x=x, y=y, text=faded(text) if name in doubtful else text, showarrow=False, xanchor=side,
            font={"size": 11}, align=side,
        )  # fmt: skip
    for score in RINGS[1:]:
        x, y = _at(score, math.pi / 2)
        figure.add_annotation(
            x=x, y=y, text=f"{score:+.0f}" if score else "0", showarrow=False, xanchor="left",
            yanchor="bottom", font={"size": 10},
        )  # fmt: skip


def _path(
    figure: "go.Figure",
    rows: Rows,
    angles: Mapping[str, float],
    name: str,
    line: dict[str, Any],
    opacity: float,
    symbol: str | None = None,
) -> None:
    import plotly.graph_objects as go

    found = {str(r.get("dimension")): r for r in rows if _score(r) == _score(r)}
    drawn = [found[dimension] for dimension in angles if dimension in found]
    if len(drawn) < 3:
        return
    closed = [*drawn, drawn[0]]
    places = [_at(_score(row), angles[str(row["dimension"])]) for row in closed]
    markers = {"symbol": symbol, "size": 7, "color": line["color"]} if symbol else None
    figure.add_trace(
        go.Scatter(
            x=[x for x, _ in places], y=[y for _, y in places], name=name, line=line,
            mode="lines+markers" if symbol else "lines", marker=markers, opacity=opacity,
            text=[f"{name}, {label(r['dimension'])}<br>{_words(r)}" for r in closed],
            customdata=[href(row) for row in closed], hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip


def _score(row: Mapping[str, Any]) -> float:
    value = row.get("score")
    return estimate(value).value if isinstance(value, dict) else number_in(value)


def _words(row: Mapping[str, Any]) -> str:
    return in_words(estimate(row.get("score")))


def _intervals(
    figure: "go.Figure", rows: Sequence[dict[str, Any]], angles: Mapping[str, float], colour: str
) -> None:
    """Strokes along the spokes from the lower to the upper end."""
    import plotly.graph_objects as go

    ends: list[tuple[float, float] | None] = []
    for row in rows:
        value = estimate(row.get("score"))
        angle = angles.get(str(row.get("dimension")))
        if angle is not None and value.low == value.low and value.high == value.high:
            ends += [_at(max(value.low, -1.0), angle), _at(min(value.high, 1.0), angle), None]
    tint = translucent(colour, 0.45) if colour.startswith("#") else colour
    figure.add_trace(
        go.Scatter(
            x=[p[0] if p else None for p in ends], y=[p[1] if p else None for p in ends],
            mode="lines", line={"color": tint, "width": 3}, hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
