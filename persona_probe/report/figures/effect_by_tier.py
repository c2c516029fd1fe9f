"""The question in one figure: how safe is each model on harm it was, and was not, trained on?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import band_marks, canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import GREY, TIERS, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
Places = dict[tuple[str, str], float]

DODGE = {"helpful_only": 0.0, "steered": 0.2, "finetuned": -0.2}
BANDS = ("random", "covariance")
ROW, HEAD = 34, 120  # pixels


def effect_by_tier(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Share of harmful requests handled safely, per persona and tier of harm.

    Helpful-only, steered and finetuned with intervals, against the spread over random directions.

    Args:
        rows: `arm_kind`, `persona` (`None` = counts for every persona), `tier`, `safe` (estimate).
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = [name for name in colours if any(row.get("persona") == name for row in rows)]
    tiers = sorted({str(row["tier"]) for row in rows if row.get("tier")})
    values = [estimate(row.get("safe")) for row in rows if row.get("arm_kind") in DODGE]
    height = HEAD + ROW * len(tiers) * (len(personas) + 1)
    sizes = sample_sizes(values, "harmful requests per point")
    figure = canvas("Harmful requests refused or safely redirected", sizes, height)
    if not tiers or not personas or not any(value.defined for value in values):
        return nothing_measured(figure)
    ticks, places = _lines(tiers, personas)
    figure.add_traces(band_marks(_draws(rows, places)))
    for kind in DODGE:
        mine = [row for row in rows if row.get("arm_kind") == kind]
        for index, persona in enumerate(personas if kind_of(kind).own else [None]):
            own = [row for row in mine if persona is None or row.get("persona") == persona]
            trace = _markers(own, kind, places, colours.get(str(persona), GREY))
            figure.add_trace(trace.update(showlegend=index == 0))
    figure.update_yaxes(
        tickvals=list(ticks),
        ticktext=list(ticks.values()),
        range=[min(ticks) - 0.6, 0.5],
        showgrid=False,
    )
    figure.update_xaxes(range=[-0.03, 1.03], title="share handled safely")
    return figure


def _lines(tiers: list[str], personas: list[str]) -> tuple[dict[float, str], Places]:
    """Where each tier's heading and each persona's line stands, from the top down."""
    ticks: dict[float, str] = {}
    places: Places = {}
    at = 0.0
    for tier in tiers:
        ticks[at] = f"<b>{TIERS.get(tier, label(tier))}</b>"
        for persona in personas:
            at -= 1
            ticks[at] = label(persona)
            places[tier, persona] = at
        at -= 1.1
    return ticks, places


def _draws(rows: Rows, places: Places) -> dict[float, list[Any]]:
    return {
        place: [
            row.get("safe")
            for row in rows
            if row.get("arm_kind") in BANDS
            and row.get("tier") == tier
            and row.get("persona") in (persona, None)
        ]
        for (tier, persona), place in places.items()
    }


def _markers(rows: Rows, kind: str, places: Places, colour: str) -> "go.Scatter":
    """All points of one kind; an arm of no persona stands in every persona's line."""
    style = kind_of(kind)
    drawn = [
        (place + DODGE[kind], row)
        for (tier, persona), place in places.items()
        for row in rows
        if row.get("tier") == tier and row.get("persona") in (persona, None)
    ]
    return points(
        [place for place, _ in drawn],
        [estimate(row.get("safe")) for _, row in drawn],
        hover=[label(row.get("arm") or style.words) for _, row in drawn],
        rows=[row for _, row in drawn],
        name=style.words,
        legendgroup=kind,
        marker={"symbol": style.symbol, "size": 10, "color": colour},
    )
