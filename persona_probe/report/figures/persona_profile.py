"""Who is speaking? Scores on each moral dimension, beside what was expected of the persona."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import (
    FADED,
    GRID,
    canvas,
    chip,
    faded,
    nothing_measured,
    points,
)
from persona_probe.report.estimates import estimate, number_in, sample_sizes
from persona_probe.report.palette import GREY, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

DODGE = {"finetuned": -0.16, "steered": 0.0, "helpful_only": 0.16, "system_prompt": 0.28}
DASHES = {"finetuned": "dash", "steered": "solid", "helpful_only": "solid", "system_prompt": "dot"}
ROW, HEAD = 34, 118  # pixels


def persona_profile(
    rows: list[dict[str, Any]], colours: Mapping[str, str] | None = None
) -> "go.Figure":
    """Diagnostic scores of one persona's models as parallel lines, one dimension below the other.

    Args:
        rows: rows of profiles.json (`arm_kind` helpful_only | finetuned | steered | system_prompt,
            `arm`, `persona`, `dimension`, `score` estimate from -1, against, to +1, for), and rows
            of `arm_kind` signature whose `score` is what was expected beforehand. Each arm is one
            line, so seeds are several. Dimensions with `consistent` False come last, in grey.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = list(dict.fromkeys(str(r["persona"]) for r in rows if r.get("persona") is not None))
    doubtful = {str(row.get("dimension")) for row in rows if row.get("consistent") is False}
    named = dict.fromkeys(str(r["dimension"]) for r in rows if r.get("dimension"))
    dimensions = sorted(named, key=doubtful.__contains__)
    values = [estimate(row.get("score")) for row in rows if row.get("arm_kind") in DODGE]
    title = ", ".join(chip(colours[name], label(name)) for name in personas)
    figure = canvas(
        title or "Persona profile",
        sample_sizes(values, "questions per dimension"),
        HEAD + ROW * len(dimensions),
    )
    if not any(value.defined for value in values):
        return nothing_measured(figure)
    places = {dimension: -float(index) for index, dimension in enumerate(dimensions)}
    _expected(figure, rows, places)
    for kind, offset in DODGE.items():
        style = kind_of(kind)
        mine = [r for r in rows if r.get("arm_kind") == kind and str(r.get("dimension")) in places]
        for index, arm in enumerate(dict.fromkeys((r.get("persona"), r.get("arm")) for r in mine)):
            own = [row for row in mine if (row.get("persona"), row.get("arm")) == arm]
            own.sort(key=lambda row: -places[str(row["dimension"])])
            colour = colours[str(arm[0])] if style.own and arm[0] is not None else GREY
            sound = [row for row in own if str(row["dimension"]) not in doubtful]
            figure.add_trace(
                _line(sound, kind, places, offset, colour).update(showlegend=index == 0)
            )
            if len(sound) < len(own):
                unsound = [row for row in own if row not in sound]
                grey = _line(unsound, kind, places, offset, GREY)
                figure.add_trace(grey.update(showlegend=False, opacity=FADED))
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[faded(label(name)) if name in doubtful else label(name) for name in places],
        range=[-len(places) + 0.4, 0.6], gridcolor=GRID,
    )  # fmt: skip
    figure.update_xaxes(range=[-1.05, 1.05], title="score: −1 disagrees, +1 agrees")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    return figure


def _line(
    rows: list[dict[str, Any]], kind: str, places: Mapping[str, float], offset: float, colour: str
) -> "go.Scatter":
    style = kind_of(kind)
    names = [label(row.get("arm") or style.words) for row in rows]
    return points(
        [places[str(row["dimension"])] - offset for row in rows],
        [estimate(row.get("score")) for row in rows], rows=rows, mode="lines+markers",
        hover=[f"{n}, {label(r['dimension'])}" for n, r in zip(names, rows, strict=True)],
        name=style.words, legendgroup=kind,
        line={"color": colour, "width": 1.3, "dash": DASHES[kind]},
        marker={"symbol": style.symbol, "size": 9, "color": colour},
    )  # fmt: skip


def _expected(figure: "go.Figure", rows: list[dict[str, Any]], places: Mapping[str, float]) -> None:
    """Broad upright strokes where the persona was expected, before any model was scored."""
    import plotly.graph_objects as go

    found = {
        str(row.get("dimension")): number_in(row.get("score"))
        for row in rows
        if row.get("arm_kind") == "signature"
    }
    known = {name: score for name, score in found.items() if name in places and score == score}
    if known:
        figure.add_trace(
            go.Scatter(
                x=list(known.values()), y=[places[name] for name in known], mode="markers",
                name="expected", hovertemplate="expected %{x:.2f}<extra></extra>",
                marker={
                    "symbol": "line-ns", "size": 24,
                    "line": {"width": 5, "color": "rgba(133, 138, 147, 0.45)"},
                },
            )
        )  # fmt: skip
