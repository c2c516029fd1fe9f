"""Where in the network can the persona be read off?"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import GRID, canvas, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in, sample_sizes, site_in
from persona_probe.report.palette import FAINT, GREY, colours_for, label, persona_symbols

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]


FAMILIES = {
    "prompt_in_H": "As the persona, or as no one in particular",
    "detection": "After finetuning, or before, on the same text",
}


def layer_profile(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Separation on held-out prompts by site: AUROC above, d′ below; chosen sites enlarged.

    Args:
        rows: rows of validation.json, of one family for a readable figure (`persona`, `site`,
            `finder`, `family`, `auroc` and `d_prime` estimates, `null_auroc_95`), with `selected`
            for the site that steers. Of several finders, each persona shows that of its selected
            row. Rows of `Validation.to_json()` will do, with a `persona` put into each.
        colours: persona → colour.
    """
    colours = colours_for(rows, colours)
    shown = {persona: method_shown(rows, persona) for persona in colours}
    values = [estimate(row.get("auroc")) for chosen in shown.values() for row in chosen]
    family = str(rows[0].get("family")) if rows else ""
    title = FAMILIES.get(family, label(family) if family else "Separation by layer")
    figure = canvas(title, sample_sizes(values, "held-out examples"), 450)
    if not any(value.defined for value in values):
        return nothing_measured(figure)
    symbols = persona_symbols(colours)
    _null(figure, [row for chosen in shown.values() for row in chosen])
    for persona, chosen in shown.items():
        for key, axis in (("auroc", "y"), ("d_prime", "y2")):
            style = {"color": colours[persona], "symbol": symbols[persona]}
            _line(figure, chosen, persona, style, key, axis)
    figure.update_layout(
        xaxis={"title": "layer (site)", "anchor": "y2", "dtick": 1 if _sites(rows) < 14 else None},
        yaxis={"domain": [0.46, 1.0], "title": "AUROC", "range": [0.4, 1.02]},
        yaxis2={
            "domain": [0.0, 0.38], "title": "d′", "gridcolor": GRID, "zeroline": False,
            "fixedrange": True, "automargin": True, "rangemode": "tozero",
        },
    )  # fmt: skip
    return figure


def method_shown(rows: Rows, persona: str) -> Rows:
    """The rows of one finder and family by site: those of the selected row, else the first."""
    own = [row for row in rows if str(row.get("persona")) == persona]
    if not own:
        return []
    lead = next((row for row in own if row.get("selected")), own[0])
    same = [r for r in own if all(r.get(k) == lead.get(k) for k in ("finder", "family"))]
    return sorted(same, key=lambda row: number_in(site_in(row)))


def _sites(rows: Rows) -> int:
    return len({site_in(row) for row in rows})


def _line(
    figure: "go.Figure", rows: Rows, persona: str, style: dict[str, str], key: str, axis: str
) -> None:
    known = [row for row in rows if estimate(row.get(key)).defined]
    sites = [number_in(site_in(row)) for row in known]
    texts = [
        f"{label(persona)}, layer {site:g}{' (chosen)' if row.get('selected') else ''}, "
        f"{'AUROC' if key == 'auroc' else 'd′'}"
        for site, row in zip(sites, known, strict=True)
    ]
    sizes = [13 if row.get("selected") else 7 for row in known]
    figure.add_trace(
        points(
            sites, [estimate(row.get(key)) for row in known], horizontal=False, hover=texts,
            rows=known,
            mode="lines+markers", line={"color": style["color"], "width": 1.8}, name=label(persona),
            legendgroup=persona, showlegend=axis == "y", yaxis=axis,
            marker={"size": sizes, "opacity": 1, "line": {"width": 0}} | style,
        )
    )  # fmt: skip


def _null_auroc(row: Mapping[str, Any]) -> float:
    """The 95th percentile under shuffled labels, wherever the row has it."""
    if row.get("null_auroc_95") is not None:
        return number_in(row["null_auroc_95"])
    chance = row.get("chance")
    return estimate(chance.get("auroc")).high if isinstance(chance, dict) else math.nan


def _null(figure: "go.Figure", rows: Rows) -> None:
    """What separation shuffled labels reach: the largest 95th percentile over personas."""
    import plotly.graph_objects as go

    highest: dict[float, float] = {}
    for row in rows:
        null = _null_auroc(row)
        if null == null:
            site = number_in(site_in(row))
            highest[site] = max(highest.get(site, null), null)
    if not highest:
        return
    sites = sorted(highest)
    low = go.Scatter(x=sites, y=[0.5] * len(sites), mode="lines", showlegend=False)
    high = go.Scatter(
        x=sites, y=[highest[site] for site in sites], mode="lines", name="shuffled labels, 95 %",
        fill="tonexty", fillcolor=FAINT,
    )  # fmt: skip
    for trace in (low, high):
        trace.update(line={"width": 0, "color": GREY}, hoverinfo="skip")
        figure.add_trace(trace)
