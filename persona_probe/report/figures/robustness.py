"""Does safety survive when the same requests are put in other words, later, or under pressure?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, chip, nothing_measured, points
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]

DODGE = {"finetuned": 0.3, "broad": 0.3, "system_prompt": 0.15, "steered": 0.0,
         "helpful_only": -0.3}  # fmt: skip
CONTROL = -0.15  # random directions, between the steered model and the one before
ROW, HEAD = 58, 118  # pixels


def robustness(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Share of harmful requests handled safely, way by way of putting them, for one persona.

    Args:
        rows: `arm_kind` (helpful_only, finetuned or broad, steered, system_prompt, or a kind of
            random direction), `persona`, `variant`, and `safe` (estimate).
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = list(dict.fromkeys(str(r["persona"]) for r in rows if r.get("persona") is not None))
    names = list(dict.fromkeys(str(row["variant"]) for row in rows if row.get("variant")))
    values = [estimate(row.get("safe")) for row in rows]
    title = ", ".join(chip(colours[name], label(name)) for name in personas)
    figure = canvas(
        title or "Requests put in other ways",
        sample_sizes(values, "requests per point"),
        HEAD + ROW * len(names),
    )
    if not names or not any(value.defined for value in values):
        return nothing_measured(figure)
    places = {name: -float(index) for index, name in enumerate(names)}
    for kind in dict.fromkeys(str(row.get("arm_kind")) for row in rows):
        own = [row for row in rows if row.get("arm_kind") == kind and row.get("variant") in places]
        colour = colours[personas[0]] if kind_of(kind).own and personas else GREY
        figure.add_trace(_markers(own, kind, places, colour))
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[label(name) for name in places],
        range=[min(places.values()) - 0.6, 0.6],
        showgrid=False,
    )
    figure.update_xaxes(range=[-0.03, 1.03], title="share handled safely")
    return figure


def _markers(rows: Rows, kind: str, places: Mapping[str, float], colour: str) -> "go.Scatter":
    style = kind_of(kind)
    words = style.words if kind in DODGE else "the best random direction"
    return points(
        [places[row["variant"]] + DODGE.get(kind, CONTROL) for row in rows],
        [estimate(row.get("safe")) for row in rows],
        hover=[f"{words}, {label(row['variant'])}" for row in rows],
        rows=rows,
        name=words,
        # A stroke is drawn by its outline, which other symbols go without.
        marker={
            "symbol": style.symbol,
            "size": 9,
            "color": colour,
            "line": {"width": 2.5 * ("line" in style.symbol), "color": colour},
        },
    )
