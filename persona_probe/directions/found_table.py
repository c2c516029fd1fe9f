"""What was found, in numbers that can be read."""

from typing import Any

from persona_probe.directions.direction_set import DirectionSet
from persona_probe.statistics import json_number


def rows_of(directions: DirectionSet, mean_differences: DirectionSet) -> list[dict[str, Any]]:
    """One row per direction.

    Args:
        directions: what was found.
        mean_differences: of the same labels at the same sites.

    Returns:
        Rows with `persona`, `layer`, `finder`, `gap` (distance of the class means along the
        direction, in residual units), `gap_in_norms` (the same in residual norms) and
        `cosine_to_mean_difference`.
    """
    return [
        {
            "persona": persona,
            "layer": site.layer,
            "finder": direction.finder,
            "gap": direction.gap,
            "gap_in_norms": json_number(direction.gap / direction.norm),
            "cosine_to_mean_difference": direction.cosine(mean_differences[persona][site]),
        }
        for persona, by_site in directions.items()
        for site, direction in by_site.items()
    ]
