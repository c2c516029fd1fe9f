"""Which site to use, chosen on prompts that serve no other purpose."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import both_classes, projections
from persona_probe.directions.direction import Direction
from persona_probe.directions.separation import auroc, d_prime_statistic
from persona_probe.errors import RequestError
from persona_probe.models.site import Site, parse_sites

CRITERIA = ("d_prime", "auroc")
DEPTHS = "0.2-0.8"  # early sites read the prompt, late ones write the next token


def select_site(
    directions: Mapping[Site, Direction],
    select_set: ActivationSet,
    n_layers: int,
    criterion: str = "d_prime",
    depths: str = DEPTHS,
) -> Direction:
    """The direction that separates best on the select part, among sites of middle depth.

    Args:
        directions: of one persona, at several sites.
        select_set: activations of the select part of the split.
        n_layers: blocks of the model.
        criterion: name in `CRITERIA`; d' does not saturate where AUROC does.
        depths: candidates, as `parse_sites` reads them.

    Returns:
        The direction, which from now on also counts the select families as used.

    Raises:
        SplitLeakError: a family of `select_set` was used to find a direction.
        RequestError: no direction lies at a candidate depth, or there is no such criterion.
    """
    candidates = {
        site: directions[site] for site in parse_sites(depths, n_layers) if site in directions
    }
    if not candidates:
        there = ", ".join(str(site.layer) for site in sorted(directions))
        raise RequestError(f"no direction at depths {depths} of {n_layers} layers, only at {there}")
    quality = separations(candidates, select_set, criterion)
    best = candidates[max(quality, key=lambda site: (quality[site], -site.layer))]
    used, _ = both_classes(select_set, best.positive_label, best.negative_label)
    return replace(best, families_used=best.families_used.union(used.families))


def separations(
    directions: Mapping[Site, Direction], held_out: ActivationSet, criterion: str = "d_prime"
) -> dict[Site, float]:
    """How well each direction separates its classes on families it was not found on."""
    if criterion not in CRITERIA:
        raise RequestError(f"no criterion {criterion!r}; choose one of {', '.join(CRITERIA)}")
    several = list(directions.values())
    held_out, y = both_classes(held_out, several[0].positive_label, several[0].negative_label)
    for direction in several:
        direction.check_held_out(held_out.families)
    scores, classes = projections(several, held_out).numpy(), y.numpy()
    if criterion == "auroc":
        values = auroc(scores, classes)
    else:
        one_family = np.zeros(len(classes), dtype=np.int64)
        values = d_prime_statistic(scores, classes, one_family, 1)(np.ones((1, 1)))[0]
    return dict(zip(directions, map(float, values), strict=True))
