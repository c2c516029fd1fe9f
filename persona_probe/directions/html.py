"""Directions as small tables in notebooks: escaped, and legible on light and dark pages."""

from collections.abc import Mapping
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.display import facts, number, table
from persona_probe.models.site import Site


def direction_html(direction: Direction) -> str:
    """What a direction is, one fact per line."""
    told = direction.provenance
    points = f"{direction.negative_label} → {direction.positive_label}"
    shown: dict[str, Any] = {
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
        "model": told.model,
        "adapter": told.adapter,
        "model hash": told.model_hash,
        "chat template": told.chat_template_hash,
        "split": direction.split_hash,
        "prompt families used": len(direction.families_used),
        "licence": direction.licence,
    }
    return facts("Direction", shown)


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
