"""The finetuning shift of every persona against the directions that were there before."""

from collections.abc import Mapping
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.before_after.comparison import Comparison, compare
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.models.site import Site
from persona_probe.statistics import json_number
from persona_probe.study.lab import Lab


def comparison_table(
    lab: Lab,
    directions: DirectionSet,
    shift: Mapping[str, ActivationSet],
    reliabilities: Mapping[str, Mapping[Site, float]],
) -> dict[str, Any]:
    """Cosine of each direction to its finetuning shift, between a floor and a ceiling.

    The floor is the cosine of the direction to the placebo's shift: what any finetuning does. The
    ceiling is the cosine between the shifts of two seeds: as alike as the same finetuning gets.

    Args:
        lab: the study.
        directions: found before finetuning.
        shift: activations of every finetune, and "before", on held-out prompts.
        reliabilities: split-half reliability of the directions.
    """
    before = shift["before"]

    def against(adapter: str) -> Comparison:
        after, seed = shift[adapter], lab.study.seed
        return compare(before, after, directions, reliabilities=reliabilities, seed=seed)

    placebo = [against(a) for a in lab.study.controls.get("placebo", ())[:1]]
    rows: list[dict[str, Any]] = []
    comparison = None
    for persona in directions:
        seeds = [against(adapter) for adapter in lab.study.narrow(persona)[:2]]
        comparison = seeds[0]
        for row in (row for row in comparison.rows if row.persona == persona):
            rows.append(
                row.to_json()
                | {
                    "site": row.site.layer,
                    "cosine_floor": json_number(placebo[0].at(persona, row.site).cosine)
                    if placebo
                    else None,
                    "cosine_ceiling": _between(seeds, row.site),
                    # A finetune of late blocks moves nothing before them.
                    "shift_reliability": comparison.model_diff_reliability.get(row.site),
                }
            )
    shared = comparison.to_json() if comparison else {}
    keys = ("personas", "cosines", "energy")
    return {"rows": rows} | {key: shared[key] for key in keys if key in shared}


def _between(seeds: list[Comparison], site: Site) -> float | None:
    """Cosine between the shifts of two seeds."""
    if len(seeds) < 2 or any(site not in seed.model_diff for seed in seeds):
        return None
    return seeds[0].model_diff[site].cosine(seeds[1].model_diff[site])
