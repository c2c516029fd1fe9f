"""Which site to use, chosen on prompts that serve no other purpose."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.leaks import require_part
from persona_probe.directions.checks.separation import auroc, d_prime_statistic
from persona_probe.directions.classes import both_classes, projections
from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site, parse_sites
from persona_probe.personas.splits import Split

CRITERIA = ("d_prime", "auroc")
DEPTHS = "0.2-0.8"  # early sites read the prompt, late ones write the next token


def select_site(
    directions: Mapping[Site, Direction],
    select_set: ActivationSet,
    n_layers: int,
    criterion: str = "d_prime",
    depths: str = DEPTHS,
    split: Split | None = None,
) -> Direction:
    """The direction that separates best on the select part, among sites of middle depth.

    Args:
        directions: of one persona, at several sites.
        select_set: activations of the select part of the split.
        n_layers: blocks of the model.
        criterion: name in `CRITERIA`; d' does not saturate where AUROC does.
        depths: candidates, as `parse_sites` reads them.
        split: the one that the directions were found under; then `select_set` must be of its
            select part.

    Returns:
        The direction, which from now on also counts the select families as used.

    Raises:
        SplitLeakError: a family of `select_set` was used to find a direction, or serves another
            purpose in `split`.
        RequestError: no direction lies at a candidate depth, or there is no such criterion.
    """
    candidates = {
        site: directions[site] for site in parse_sites(depths, n_layers) if site in directions
    }
    if not candidates:
        there = ", ".join(str(site.layer) for site in sorted(directions))
        raise RequestError(f"no direction at depths {depths} of {n_layers} layers, only at {there}")
    quality = separations(candidates, select_set, criterion, split)
    best = candidates[max(quality, key=lambda site: (quality[site], -site.layer))]
    used, _ = both_classes(select_set, best.positive_label, best.negative_label)
    return replace(
        best,
        families_used=best.families_used.union(used.families),
        families_selected=best.families_selected.union(used.families),
    )


def separations(
    directions: Mapping[Site, Direction],
    select_set: ActivationSet,
    criterion: str = "d_prime",
    split: Split | None = None,
) -> dict[Site, float]:
    """How well each direction separates its classes on the select part; see `select_site`."""
    if criterion not in CRITERIA:
        raise RequestError(f"no criterion {criterion!r}; choose one of {', '.join(CRITERIA)}")
    several = list(directions.values())
    select_set, y = both_classes(select_set, several[0].positive_label, several[0].negative_label)
    require_part(several, select_set, "select", split)
    scores, classes = projections(several, select_set).numpy(), y.numpy()
    if criterion == "auroc":
        values = auroc(scores, classes)
    else:
        one_family = np.zeros(len(classes), dtype=np.int64)
        values = d_prime_statistic(scores, classes, one_family, 1)(np.ones((1, 1)))[0]
    return dict(zip(directions, map(float, values), strict=True))
