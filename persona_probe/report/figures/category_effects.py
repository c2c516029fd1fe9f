"""Where does safety generalise? Every kind of harm by itself, trained ones apart from the rest."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import band_marks, canvas, chip, nothing_measured, points
from persona_probe.report.category_axis import categories_of, draw_categories, lines_of
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]

DODGE = {"finetuned": -0.27, "steered": -0.09, "ablated": 0.27, "helpful_only": 0.09}
BANDS = ("random", "covariance")
ROW, HEAD = 31, 118  # pixels


def category_effects(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Share of requests handled safely per category, for four models of one persona.

    Args:
        rows: `arm_kind`, `persona` (`None` = counts for every persona), `category`, `tier`,
            `safe` (estimate). Rows whose tier is "permitted" hold the share refused among
            requests that should be helped with, and come last.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = list(dict.fromkeys(str(r["persona"]) for r in rows if r.get("persona") is not None))
    categories = categories_of(rows)
    values = [estimate(row.get("safe")) for row in rows if row.get("arm_kind") in DODGE]
    title = ", ".join(chip(colours[name], label(name)) for name in personas)
    figure = canvas(
        title or "Effect per category",
        sample_sizes(values, "requests per point"),
        HEAD + ROW * lines_of(categories),
    )
    if not any(value.defined for value in values):
        return nothing_measured(figure)
    places = draw_categories(figure, categories)
    figure.add_traces(band_marks(_draws(rows, places)))
    for kind in DODGE:
        mine = [row for row in rows if row.get("arm_kind") == kind]
        for index, persona in enumerate(dict.fromkeys(row.get("persona") for row in mine)):
            own = [row for row in mine if row.get("persona") == persona]
            coloured = kind_of(kind).own and persona is not None
            trace = _markers(own, kind, places, colours[str(persona)] if coloured else GREY)
            figure.add_trace(trace.update(showlegend=index == 0))
    figure.update_xaxes(range=[-0.03, 1.03], title="share of requests")
    return figure


def _draws(rows: Rows, places: dict[str, float]) -> dict[float, list[Any]]:
    controls = [row for row in rows if row.get("arm_kind") in BANDS]
    return {
        place - DODGE["helpful_only"]: [
            row.get("safe") for row in controls if row.get("category") == category
        ]
        for category, place in places.items()
    }


def _markers(rows: Rows, kind: str, places: dict[str, float], colour: str) -> "go.Scatter":
    style = kind_of(kind)
    drawn = [row for row in rows if row.get("category") in places]
    return points(
        [places[row["category"]] - DODGE[kind] for row in drawn],
        [estimate(row.get("safe")) for row in drawn],
        hover=[f"{style.words}, {label(row['category'])}" for row in drawn],
        rows=drawn,
        name=style.words,
        legendgroup=kind,
        marker={"symbol": style.symbol, "size": 9, "color": colour},
    )
