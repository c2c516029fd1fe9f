"""Directions as small tables in notebooks: escaped, and legible on light and dark pages."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.models.site import Site

# Colours are those of the page; only lines are drawn, half transparent.
TABLE = "border-collapse:collapse;color:inherit;background:transparent"
CELL = (
    "text-align:left;padding:.15em .6em;color:inherit;background:transparent;"
    "border-bottom:1px solid rgba(128,128,128,.5)"
)


def direction_html(direction: Direction) -> str:
    """What a direction is, one fact per line."""
    told = direction.provenance
    points = f"{direction.negative_label} → {direction.positive_label}"
    facts: dict[str, Any] = {
        "persona": direction.persona,
        "points": points,
        "site": str(direction.site),
        "width": len(direction.unit),
        "gap": number(direction.gap),
        "midpoint": number(direction.midpoint),
        "median residual norm": number(direction.norm),
        "finder": direction.finder,
        "contrast": direction.family,
        "read at": direction.position,
        "model": told.model or "–",
        "adapter": told.adapter or "–",
        "model hash": told.model_hash or "–",
        "chat template": told.chat_template_hash or "–",
        "split": direction.split_hash or "–",
        "prompt families used": len(direction.families_used),
        "licence": direction.licence or "–",
    }
    return table(["Direction", ""], [[name, fact] for name, fact in facts.items()])


def directions_html(directions: Mapping[str, Mapping[Site, Direction]]) -> str:
    """One line per persona and site."""
    rows = [
        [
            persona,
            direction.site.layer,
            number(direction.gap),
            number(direction.gap / direction.norm),
            direction.finder,
            direction.family,
            direction.position,
            direction.provenance.model or "–",
            direction.split_hash or "–",
        ]
        for persona, by_site in directions.items()
        for direction in by_site.values()
    ]
    heads = ["persona", "layer", "gap", "gap / norm", "finder", "contrast", "read at", "model"]
    return table([*heads, "split"], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table without scripts, classes or anything from elsewhere."""
    head = "".join(f'<th style="{CELL}">{escape(name)}</th>' for name in heads)
    lines = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table style="{TABLE}"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def number(value: float) -> str:
    """Four digits, or a dash where there is none."""
    return f"{value:.4g}" if value == value else "–"
