"""What was found, in numbers that can be read."""

from collections.abc import Mapping
from typing import Any

from persona_probe.directions.direction_set import DirectionSet
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, json_number


def rows_of(
    directions: DirectionSet,
    mean_differences: DirectionSet,
    own: Mapping[Site, Mapping[str, float]] | None = None,
    noiseless: Mapping[Site, Mapping[str, Estimate]] | None = None,
) -> list[dict[str, Any]]:
    """One row per direction.

    Args:
        directions: what was found.
        mean_differences: of the same labels at the same sites.
        own: energy share of each one's specific part, where there are several.
        noiseless: the same without sampling noise, where that is known.

    Returns:
        Rows with `persona`, `layer`, `family`, `finder`, `position`, `model_hash`, `split_hash`,
        `n_positive` and `n_negative` examples, `gap` (distance of the class means along the
        direction, in residual units), `gap_in_norms` (the same in residual norms),
        `cosine_to_mean_difference`, `own_share` and `own_share_without_noise`.
    """
    rows = []
    for persona, by_site in directions.items():
        for site, direction in by_site.items():
            estimate = (noiseless or {}).get(site, {}).get(persona)
            rows.append(
                {
                    "persona": persona,
                    "layer": site.layer,
                    "family": direction.family,
                    "finder": direction.finder,
                    "position": direction.position,
                    "model_hash": direction.provenance.model_hash,
                    "split_hash": direction.split_hash,
                    "n_positive": direction.n_positive,
                    "n_negative": direction.n_negative,
                    "gap": direction.gap,
                    "gap_in_norms": json_number(direction.gap / direction.norm),
                    "cosine_to_mean_difference": direction.cosine(mean_differences[persona][site]),
                    "own_share": (own or {}).get(site, {}).get(persona),
                    "own_share_without_noise": None if estimate is None else estimate.to_json(),
                }
            )
    return rows
