"""How many dimensions must be taken out before the effect is gone?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, nothing_measured, points, spread
from persona_probe.report.estimates import estimate, number_in, sample_sizes
from persona_probe.report.palette import FAINT, GREY, colours_for, label, persona_symbols

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]


def rank_curve(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Share of finetuning's effect that is lost when a subspace of rank k is taken out.

    Args:
        rows: rows of rank_curve.json: `persona`, `kind` direction | random, `k`, `removed`
            (estimate, of the gain in safe replies; 1 = all of it), or else `removed_fast` (of that
            in the probability of refusing). Random subspaces of equal rank give the band.
        colours: persona → colour.
    """
    import plotly.graph_objects as go

    slow = any(estimate(row.get("removed")).defined for row in rows)
    key = "removed" if slow else "removed_fast"
    own = [row for row in rows if row.get("kind") == "direction" and estimate(row.get(key)).defined]
    colours = colours_for(own, colours)
    people = list(dict.fromkeys(str(row.get("persona")) for row in own))
    sizes = sample_sizes((estimate(row.get(key)) for row in own), "requests")
    figure = canvas("Share removed with a subspace of rank k", sizes, 340)
    if not own:
        return nothing_measured(figure)
    random = [row for row in rows if row.get("kind") == "random"]
    ranks = sorted({number_in(row.get("k")) for row in [*own, *random]})
    places = {k: float(index) for index, k in enumerate(ranks)}
    band = {
        places[k]: found
        for k in ranks
        if (found := spread(r.get(key) for r in random if number_in(r.get("k")) == k))
    }
    if band:
        shared = {"x": list(band), "mode": "lines", "hoverinfo": "skip",
                  "line": {"width": 0 if len(band) > 1 else 6, "color": GREY}}  # fmt: skip
        figure.add_trace(
            go.Scatter(y=[low for low, *_ in band.values()], showlegend=False, **shared)
        )
        figure.add_trace(
            go.Scatter(
                y=[high for _, _, high, _ in band.values()], fill="tonexty", fillcolor=FAINT,
                name="random subspaces, 5–95 %", **shared,
            )
        )  # fmt: skip
    symbols = persona_symbols(colours)
    for number, persona in enumerate(people):
        mine = sorted((r for r in own if str(r.get("persona")) == persona), key=_rank)
        dodge = 0.07 * (number - (len(people) - 1) / 2)
        figure.add_trace(
            points(
                [places[_rank(row)] + dodge for row in mine],
                [estimate(row[key]) for row in mine], horizontal=False, rows=mine,
                hover=[f"{label(persona)}, rank {_rank(row):g}" for row in mine],
                mode="lines+markers", name=label(persona),
                line={"color": colours[persona], "width": 1.8},
                marker={"symbol": symbols[persona], "size": 8, "color": colours[persona]},
            )
        )  # fmt: skip
    figure.update_xaxes(
        title="rank k", tickvals=list(places.values()), ticktext=[f"{k:g}" for k in places]
    )
    figure.update_yaxes(title="share removed" if slow else "share of refusing removed")
    return figure


def _rank(row: Mapping[str, Any]) -> float:
    return number_in(row.get("k"))
