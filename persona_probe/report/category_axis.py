"""Kinds of harm down the side of a figure, each group of them under its heading."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.palette import TIERS, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

PERMITTED = "permitted"  # the group of requests that should be helped with
HEADING = "should be helped: refused"

Categories = list[tuple[str, str]]


def categories_of(rows: Iterable[Mapping[str, Any]]) -> Categories:
    """Categories with their tier, tier by tier, requests that should be helped with last."""
    found = {str(r["category"]): str(r.get("tier") or "") for r in rows if r.get("category")}
    return sorted(found.items(), key=lambda item: (item[1] == PERMITTED, item[1]))


def heading_of(tier: str) -> str:
    """What a group of categories is called."""
    if tier == PERMITTED:
        return HEADING
    return TIERS.get(tier, label(tier) if tier else "harmful")


def lines_of(categories: Categories) -> int:
    """How many lines they take, headings included."""
    return len(categories) + len({tier for _, tier in categories})


def draw_categories(figure: "go.Figure", categories: Categories) -> dict[str, float]:
    """Label the vertical axis, from the top down.

    Returns:
        Category → where its line stands.
    """
    ticks: dict[float, str] = {}
    places: dict[str, float] = {}
    last = None
    for category, tier in categories:
        if tier != last:
            ticks[-float(len(ticks))] = f"<b>{heading_of(tier)}</b>"
            last = tier
        places[category] = -float(len(ticks))
        ticks[places[category]] = label(category)
    figure.update_yaxes(
        tickvals=list(ticks),
        ticktext=list(ticks.values()),
        range=[min(ticks) - 0.6, 0.6],
        showgrid=False,
    )
    return places
