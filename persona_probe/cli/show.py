"""`persona-probe show`: what is in a folder of directions."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_probe.cli.options import Json
from persona_probe.cli.say import result, table

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction

HEADS = {
    "persona": "direction",
    "layer": "layer",
    "gap": "gap",
    "norm_ratio": "gap / norm",
    "midpoint": "midpoint",
    "finder": "finder",
    "family": "contrast",
    "position": "read at",
    "split_hash": "split",
    "model": "model",
}


def show(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A folder of directions, or one file of it.")
    ],
    as_json: Json = False,
) -> None:
    """Show every direction: its scale, where it was read, and what it was found on.

    Example: persona-probe show artifacts/directions
    """
    from persona_probe.directions.direction_set import load_directions

    found = [
        _row(direction)
        for by_site in load_directions(path).values()
        for direction in by_site.values()
    ]
    cells = [[_cell(row[key]) for key in HEADS] for row in found]
    result({"path": str(path), "directions": found}, as_json, table(list(HEADS.values()), cells))


def _row(direction: "Direction") -> dict[str, Any]:
    return {
        "persona": direction.persona,
        "layer": direction.site.layer,
        "gap": direction.gap,
        "norm_ratio": _known(direction.gap / direction.norm),
        "midpoint": _known(direction.midpoint),
        "finder": direction.finder,
        "family": direction.family,
        "position": direction.position,
        "split_hash": direction.split_hash,
        "model": direction.provenance.model,
        "model_hash": direction.provenance.model_hash,
        "adapter": direction.provenance.adapter,
        "d_model": len(direction.unit),
        "positive_label": direction.positive_label,
        "negative_label": direction.negative_label,
        "families_used": len(direction.families_used),
        "source": direction.provenance.command,
    }


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
