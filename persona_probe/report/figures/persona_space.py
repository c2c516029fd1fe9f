"""Where do finetuned and prompted models lie, seen from the helpful-only one?"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import GRID, canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in, plain, sample_sizes
from persona_probe.report.palette import FAINT, GREY, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
OWN = ("finetuned", "broad", "system_prompt", "steered")
STEPS = 36


def persona_space(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Mean displacement of each model along two principal components of all displacements.

    Args:
        rows: rows of landscape.json's `points`: `arm`, `arm_kind`, `persona`, `seed`, `pc1` and
            `pc2` (estimates, residual-stream units; the helpful-only model is the origin), `noise`
            (radius that 95 % of displacements with randomly reversed signs stay inside); rows
            with `axis` and `share` say how much of the variance each component holds.
        colours: persona → colour.
    """
    models = [r for r in rows if all(estimate(r.get(key)).defined for key in ("pc1", "pc2"))]
    colours = colours_for(models, colours)
    sizes = sample_sizes((estimate(row["pc1"]) for row in models), "prompts per model")
    figure = canvas("Persona space", sizes, 520)
    if not models:
        return nothing_measured(figure)
    noisy = [row for row in models if number_in(row.get("noise")) > 0]
    for index, row in enumerate(noisy):
        figure.add_trace(_circle(row, index == 0))
    groups: dict[tuple[str, str | None], Rows] = {}
    for row in models:
        groups.setdefault((str(row.get("arm_kind")), row.get("persona")), []).append(row)
    named: set[str] = set()
    for (kind, persona), own in groups.items():
        style, whose = kind_of(kind), None if persona is None else str(persona)
        colour = colours[whose] if whose and kind in OWN else GREY
        trace = points(
            [estimate(row["pc2"]).value for row in own], [estimate(row["pc1"]) for row in own],
            hover=[f"{label(row.get('arm') or kind)}, first component" for row in own],
            rows=own, showlegend=False, marker={"symbol": style.symbol, "size": 10,
                                                "color": colour, "line": {"width": 1.8}},
        )  # fmt: skip
        up = [estimate(row["pc2"]) for row in own]
        trace.error_y = {
            "type": "data", "symmetric": False, "array": [_side(e.high - e.value) for e in up],
            "arrayminus": [_side(e.value - e.low) for e in up], "thickness": 1.4, "width": 0,
            "color": colour,
        }  # fmt: skip
        figure.add_trace(trace)
        words = style.words if kind in (*OWN, "helpful_only") else "control finetuning"
        if words not in named:
            symbol = style.symbol if words == style.words else "square"
            figure.add_trace(_entry(words, symbol, GREY))
            named.add(words)
    people = [p for p in colours if any(str(row.get("persona")) == p for row in models)]
    for persona in people:
        figure.add_trace(_entry(label(persona), "circle", colours[persona]))
    for persona, (x, y, anchor) in _middles(models, people).items():
        figure.add_annotation(
            x=x, y=y, text=label(persona), showarrow=False, xanchor=anchor,
            xshift=9 if anchor == "left" else -9, font={"size": 11},
        )  # fmt: skip
    shares = {int(number_in(r["axis"])): number_in(r.get("share")) for r in rows if "axis" in r}
    figure.update_xaxes(title=_axis(1, shares), gridcolor=GRID)
    figure.update_yaxes(title=_axis(2, shares), scaleanchor="x", gridcolor=GRID)
    return figure


def _middles(models: Rows, people: list[str]) -> dict[str, tuple[float, float, str]]:
    """Where each persona's name stands, for readers who cannot tell the colours apart.

    Beside the mean of its finetunes, on the side that faces away from the nearest other persona.
    """
    found = {}
    for persona in people:
        own = [row for row in models if str(row.get("persona")) == persona]
        tuned = [row for row in own if row.get("arm_kind") == "finetuned"] or own
        x, y = (
            sum(estimate(row[key]).value for row in tuned) / len(tuned) for key in ("pc1", "pc2")
        )
        found[persona] = (x, y)
    placed = {}
    for persona, (x, y) in found.items():
        others = [place for name, place in found.items() if name != persona]
        nearest = min(others, key=lambda o: math.hypot(o[0] - x, o[1] - y), default=(x - 1, y))
        placed[persona] = (x, y, "right" if x < nearest[0] else "left")
    return placed


def _axis(number: int, shares: Mapping[int, float]) -> str:
    share = shares.get(number, math.nan)
    part = "" if math.isnan(share) else f" ({plain(100 * share, 0)} % of variance)"
    return f"component {number}{part}"


def _entry(name: str, symbol: str, colour: str) -> "go.Scatter":
    """A line of the key, without points of its own."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[None], y=[None], mode="markers", name=name,
        marker={"symbol": symbol, "size": 10, "color": colour},
    )  # fmt: skip


def _circle(row: dict[str, Any], named: bool) -> "go.Scatter":
    """What noise in the mean alone could bring about, around a model."""
    import plotly.graph_objects as go

    x, y = estimate(row["pc1"]).value, estimate(row["pc2"]).value
    radius = number_in(row["noise"])
    turns = [2 * math.pi * i / STEPS for i in range(STEPS + 1)]
    return go.Scatter(
        x=[x + radius * math.cos(t) for t in turns], y=[y + radius * math.sin(t) for t in turns],
        mode="lines", fill="toself", fillcolor=FAINT, line={"width": 0, "color": GREY},
        hoverinfo="skip", showlegend=named, name="size of a displacement by chance, 95 %",
    )  # fmt: skip


def _side(length: float) -> float:
    return max(length, 0.0) if length == length else 0.0
