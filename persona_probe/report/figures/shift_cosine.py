"""Does finetuning move the model along the direction that it held already?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, chip, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in, sample_sizes, site_in
from persona_probe.report.palette import FAINT, GREY, colours_for, label
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
BOUNDS = {
    "cosine_floor": ("placebo finetuning (floor)", "dot"),
    "cosine_ceiling": ("second seed (ceiling)", "dash"),
}


def shift_cosine(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Cosine, site by site, of the helpful-only model's own direction and the finetuning shift.

    Args:
        rows: rows of comparison.json or of `Comparison.to_json()` (`persona`, `site` or `layer`,
            `cosine` number or estimate, or `cosine_interval`; `null_cosine`, estimate of its size
            for sign-flipped shifts; `cosine_floor` or `floor`, `cosine_ceiling` or `ceiling`), one
            persona's for a readable panel; a row with `selected` is drawn larger.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    personas = list(dict.fromkeys(str(row.get("persona")) for row in rows))
    values = [_cosine(row) for row in rows]
    title = ", ".join(chip(colours[name], label(name)) for name in personas if name in colours)
    figure = canvas(title or "Shift and direction", sample_sizes(values, "prompts per layer"), 300)
    if not any(value.defined for value in values):
        return nothing_measured(figure)
    for persona in personas:
        own = sorted(
            (row for row in rows if str(row.get("persona")) == persona),
            key=lambda row: number_in(site_in(row)),
        )
        _null(figure, own)
        for key, (name, dash) in BOUNDS.items():
            _bound(figure, own, key, name, dash)
        _line(figure, own, colours.get(persona, GREY))
    known = [e.low if e.low == e.low else e.value for e in values if e.defined]
    figure.update_yaxes(range=[min(-0.1, min(known) - 0.05), 1.03], title="cosine")
    figure.update_xaxes(title="layer (site)", dtick=1 if len(values) < 14 * len(personas) else None)
    return figure


def _cosine(row: Mapping[str, Any]) -> Estimate:
    """With its interval where the row has one."""
    bounded = estimate(row.get("cosine_interval"))
    return bounded if bounded.defined else estimate(row.get("cosine"))


def _line(figure: "go.Figure", rows: Rows, colour: str) -> None:
    values = [_cosine(row) for row in rows]
    sizes = [13 if row.get("selected") else 7 for row in rows]
    sites = [number_in(site_in(row)) for row in rows]
    figure.add_trace(
        points(
            sites, values, horizontal=False, mode="lines+markers",
            name="direction and finetuning shift", rows=rows,
            hover=[f"layer {site:g}" for site in sites],
            line={"color": colour, "width": 2.2},
            marker={
                "symbol": "diamond", "color": colour, "opacity": 1, "line": {"width": 0},
                "size": [s for s, value in zip(sizes, values, strict=True) if value.defined],
            },
        )
    )  # fmt: skip


def _null(figure: "go.Figure", rows: Rows) -> None:
    """Cosines within this band also arise when before and after are swapped at random."""
    import plotly.graph_objects as go

    reach = [(number_in(site_in(r)), estimate(r.get("null_cosine")).high) for r in rows]
    known = [(site, high) for site, high in reach if high == high]
    if not known:
        return
    sites, highs = [site for site, _ in known], [high for _, high in known]
    shared = {"x": sites, "mode": "lines", "line": {"width": 0, "color": GREY}}
    name = "before and after swapped at random, 95 %"
    low = go.Scatter(y=[-high for high in highs], showlegend=False, hoverinfo="skip", **shared)
    high = go.Scatter(
        y=highs, name=name, fill="tonexty", fillcolor=FAINT, hoverinfo="skip", **shared
    )
    figure.add_traces([low, high])


def _bound(figure: "go.Figure", rows: Rows, key: str, name: str, dash: str) -> None:
    values = [estimate(row.get(key, row.get(key.removeprefix("cosine_")))) for row in rows]
    if any(value.defined for value in values):
        sites = [number_in(site_in(row)) for row in rows]
        figure.add_trace(
            points(
                sites, values, horizontal=False, mode="lines", name=name, marker={"color": GREY},
                line={"color": GREY, "width": 1.5, "dash": dash}, hover=[name] * len(rows),
            )
        )  # fmt: skip
