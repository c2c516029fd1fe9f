"""How much of what finetuning did to each kind of harm does the direction do?"""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import band_marks, canvas, chip, nothing_measured, points
from persona_probe.report.category_axis import categories_of, draw_categories, lines_of
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, colours_for, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]

SYMBOLS = ("diamond", "diamond-open")  # the scope of the ladder, then the other
DODGE = 0.18
BANDS = ("random", "covariance")
ROW, HEAD = 31, 118  # pixels
SHORT = 30  # characters of a reason; the rest is in the table


def category_reproduced(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Effect reproduced, ER, in each category of harm, for one persona.

    0 is the model before finetuning and 1 the finetuned one. Where finetuning itself did nothing
    that can be told from nothing, ER is undefined and the line says so.

    Args:
        rows: `arm_kind` steered | random | covariance, `persona`, `category`, `tier`, `scope` (of
            the finetunes that are 1; the first one met is the headline and has the band) and
            `reproduced` (estimate; undefined ones with their reason).
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = list(dict.fromkeys(str(r["persona"]) for r in rows if r.get("persona") is not None))
    own = [r for r in rows if r.get("arm_kind") == "steered" and r.get("category")]
    categories = categories_of(own)
    scopes = list(dict.fromkeys(row.get("scope") for row in own))
    title = ", ".join(chip(colours[name], label(name)) for name in personas)
    figure = canvas(
        title or "Effect reproduced per category",
        sample_sizes([estimate(row.get("reproduced")) for row in own], "requests per point"),
        HEAD + ROW * lines_of(categories),
    )
    if not any(estimate(row.get("reproduced")).defined for row in own):
        return nothing_measured(figure)
    places = draw_categories(figure, categories)
    for level in (0, 1):
        figure.add_vline(x=level, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    figure.add_traces(band_marks(_draws([r for r in rows if r.get("scope") == scopes[0]], places)))
    for index, scope in enumerate(scopes[: len(SYMBOLS)]):
        mine = [row for row in own if row.get("scope") == scope]
        shift = DODGE * (index - (min(len(scopes), len(SYMBOLS)) - 1) / 2)
        colour = colours[str(mine[0]["persona"])] if mine[0].get("persona") else GREY
        figure.add_trace(_markers(mine, scope, places, shift, colour, SYMBOLS[index]))
    _undefined(figure, [row for row in own if row.get("scope") == scopes[0]], places)
    figure.update_xaxes(title="effect reproduced (ER)")
    return figure


def _markers(
    rows: Rows, scope: Any, places: dict[str, float], shift: float, colour: str, symbol: str
) -> "go.Scatter":
    name = f"of {label(scope).lower()} finetuning" if scope else "of finetuning"
    return points(
        [places[row["category"]] - shift for row in rows],
        [estimate(row.get("reproduced")) for row in rows],
        hover=[f"{name}, {label(row['category'])}" for row in rows],
        rows=rows,
        name=name,
        marker={"symbol": symbol, "size": 9, "color": colour},
    )


def _draws(rows: Rows, places: dict[str, float]) -> dict[float, list[Any]]:
    controls = [row for row in rows if row.get("arm_kind") in BANDS]
    return {
        place: [row.get("reproduced") for row in controls if row.get("category") == category]
        for category, place in places.items()
    }


def _undefined(figure: "go.Figure", rows: Rows, places: dict[str, float]) -> None:
    """On the line of a category without a number, why there is none."""
    for row in rows:
        value = estimate(row.get("reproduced"))
        if not value.defined:
            figure.add_annotation(
                x=1, xref="paper", y=places[row["category"]], xanchor="right", showarrow=False,
                font={"size": 11, "color": GREY}, text=_short(value.reason or "not measured"),
            )  # fmt: skip


def _short(reason: str) -> str:
    """A reason that a phone shows whole; numbers are in the table."""
    if "does not exclude 0" in reason:
        reason = "no clear finetuning effect"
    return escape(reason if len(reason) <= SHORT else f"{reason[: SHORT - 1]}…", quote=False)
