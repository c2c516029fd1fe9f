"""How far does each way of making the model safe reach beyond what it was made from?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, chip, nothing_measured, points, spread
from persona_probe.report.estimates import estimate, sample_sizes
from persona_probe.report.palette import FAINT, GREY, TIERS, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
LINES = {
    "finetuned": "dash", "broad": "dot", "steered": "solid", "trained": "longdash",
    "system_prompt": "dashdot",
    "placebo": "dot", "refusal_only": "dot",
}  # fmt: skip
DODGE = dict(zip(LINES, (-0.18, -0.12, -0.06, 0.0, 0.06, 0.12, 0.18), strict=True))
BANDS = ("random", "covariance", "kl_matched")


def projectability(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Gain in safe replies over the helpful-only model, tier by tier, for one persona.

    A line that stays level projects: what it gains on the harms it was made from, it gains on
    those that were kept out of everything.

    Args:
        rows: `gains` of tiers.json: `arm_kind` finetuned (narrow) | broad | steered |
            trained (the best one vector) | system_prompt | a control finetune (placebo,
            refusal_only …: grey), `persona`, `tier` T0 … T3, `value` (estimate, share of replies).
            Rows of random directions give a band.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    drawn = [row for row in rows if row.get("arm_kind") in LINES and row.get("persona")]
    people = list(dict.fromkeys(str(row["persona"]) for row in drawn))
    tiers = sorted({str(row["tier"]) for row in rows if row.get("tier")})
    values = [estimate(row.get("value")) for row in rows if row.get("arm_kind") in LINES]
    title = ", ".join(chip(colours[name], label(name)) for name in people)
    figure = canvas(title or "Projectability", sample_sizes(values, "requests per point"), 330)
    if not any(value.defined for value in values):
        return nothing_measured(figure)
    places = {tier: float(index) for index, tier in enumerate(tiers)}
    _band(figure, [row for row in rows if row.get("arm_kind") in BANDS], places)
    for kind, dash in LINES.items():
        mine = [r for r in rows if r.get("arm_kind") == kind and str(r.get("tier")) in places]
        for index, arm in enumerate(dict.fromkeys((r.get("persona"), r.get("arm")) for r in mine)):
            own = [row for row in mine if (row.get("persona"), row.get("arm")) == arm]
            own.sort(key=lambda row: str(row["tier"]))
            style, colour = (
                kind_of(kind),
                colours.get(str(arm[0]), GREY) if kind_of(kind).own else GREY,
            )
            figure.add_trace(
                points(
                    [places[str(row["tier"])] + DODGE[kind] for row in own],
                    [estimate(row.get("value")) for row in own], horizontal=False, rows=own,
                    hover=[f"{label(arm[1] or style.words)}, {_words(r['tier'])}" for r in own],
                    mode="lines+markers", name=style.words, showlegend=index == 0,
                    line={"color": colour, "width": 1.6, "dash": dash},
                    marker={"symbol": style.symbol, "size": 9, "color": colour},
                )
            )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(places.values()), range=[-0.4, len(tiers) - 0.6], showgrid=False,
        ticktext=[_words(tier).replace(" of ", " of<br>").replace(" outside", "<br>outside")
                  for tier in tiers],
    )  # fmt: skip
    figure.update_yaxes(title="gain in safe replies")
    return figure


def _words(tier: Any) -> str:
    return TIERS.get(str(tier), label(tier))


def _band(figure: "go.Figure", rows: Rows, places: Mapping[str, float]) -> None:
    import plotly.graph_objects as go

    found = {
        place: band
        for tier, place in places.items()
        if (band := spread(row.get("value") for row in rows if row.get("tier") == tier))
    }
    if not found:
        return
    x = [-0.4 if place == 0 else place for place in found]
    x[-1] = max(places.values()) + 0.4
    shared = {"x": x, "mode": "lines", "line": {"width": 0, "color": GREY}, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(y=[b[0] for b in found.values()], showlegend=False, **shared))
    figure.add_trace(
        go.Scatter(
            y=[band[2] for band in found.values()], fill="tonexty", fillcolor=FAINT,
            name="random directions, 5–95 %", **shared,
        )
    )  # fmt: skip
