"""Does a direction separate its classes on prompts it has never seen, and better than chance?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions import finder_named
from persona_probe.directions.chance import Chance, chance_levels
from persona_probe.directions.classes import both_classes, projections, site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import Finder
from persona_probe.directions.relabelling import pair_index
from persona_probe.directions.reliability import Reliability, reliability
from persona_probe.directions.separation import auroc, permuted_aurocs, separation
from persona_probe.directions.surface import surface_scores
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, cluster_index, json_number, permutation_p

OUTLIER_LIMIT = 0.3  # between the ranges reported for models where directions fail and work


@dataclass(frozen=True)
class ValidationRow:
    """Everything measured about one direction.

    Attributes:
        site: where.
        auroc: on held-out families, interval clustered by family.
        balanced_accuracy: with the midpoint of the find part as threshold.
        d_prime: distance of class means in pooled standard deviations.
        gain: AUROC minus that of the best baseline, paired.
        baselines: AUROC of what can be read without the model; see `surface`.
        p: permutation p of the AUROC, labels permuted within pairs, or else within families.
        p_over_sites: the same against the largest null AUROC of all sites (max-T).
        outlier_ratio: largest over median standard deviation of a coordinate, over sqrt(d_model).
        chance: `None` without the activations that the direction was found on.
        reliability: likewise.
    """

    site: Site
    auroc: Estimate
    balanced_accuracy: Estimate
    d_prime: Estimate
    gain: Estimate
    p: float
    p_over_sites: float
    outlier_ratio: float
    baselines: dict[str, Estimate] = field(default_factory=dict)
    chance: Chance | None = None
    reliability: Reliability | None = None

    @property
    def outlier_flag(self) -> bool:
        """Whether one coordinate varies so much that it may own the direction."""
        return self.outlier_ratio > OUTLIER_LIMIT

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "layer": self.site.layer,
            "auroc": self.auroc.to_json(),
            "balanced_accuracy": self.balanced_accuracy.to_json(),
            "d_prime": self.d_prime.to_json(),
            "gain": self.gain.to_json(),
            "baselines": {name: area.to_json() for name, area in self.baselines.items()},
            "p": json_number(self.p),
            "p_over_sites": json_number(self.p_over_sites),
            "outlier_ratio": json_number(self.outlier_ratio),
            "outlier_flag": self.outlier_flag,
            "chance": self.chance.to_json() if self.chance else None,
            "reliability": self.reliability.to_json() if self.reliability else None,
        }


@dataclass(frozen=True)
class Validation:
    """The rows of one persona's directions, in order of depth."""

    persona: str
    finder: str
    rows: tuple[ValidationRow, ...]

    def at(self, site: Site) -> ValidationRow:
        """The row of one site."""
        return next(row for row in self.rows if row.site == site)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "persona": self.persona,
            "finder": self.finder,
            "rows": [row.to_json() for row in self.rows],
        }


def validate(
    directions: Mapping[Site, Direction],
    held_out: ActivationSet,
    found_on: ActivationSet | None = None,
    finder: Finder | None = None,
    *,
    baselines: Mapping[str, Float[np.ndarray, " example"]] | None = None,
    resamples: int = 10_000,
    permutations: int = 2_000,
    relabellings: int = 99,
    seed: int = 0,
) -> Validation:
    """Validate one persona's directions at all their sites, together.

    Args:
        directions: of one persona, found on one contrast.
        held_out: activations of families that were used neither to find nor to select. Examples
            with other labels are ignored.
        found_on: the activations they were found on, for reliability, chance and text baselines.
        finder: the one that found them; the one of that name with default settings if not given.
        baselines: further scores of the held-out examples of the two classes, in their order, such
            as projections of the embedding layer.
        resamples: bootstrap draws of families.
        permutations: of the held-out labels.
        relabellings: balanced shuffles and control tasks; each is a new fit.
        seed: of everything random.

    Raises:
        SplitLeakError: a held-out family had been used to find or to select.
        DegenerateClassesError: a class is missing.
    """
    in_order = [directions[site] for site in sorted(directions)]
    labels = in_order[0].positive_label, in_order[0].negative_label
    held_out, y = both_classes(held_out, *labels)
    for direction in in_order:
        direction.check_held_out(held_out.families)
    surface = dict(baselines or {})
    if found_on is not None:
        surface |= surface_scores(*both_classes(found_on, *labels), held_out)
    scores, classes = projections(in_order, held_out).numpy(), y.numpy()
    separated = separation(
        scores,
        np.array([direction.midpoint for direction in in_order]),
        surface,
        classes,
        held_out.families,
        resamples=resamples,
        seed=seed,
    )
    stratum, rng = _strata(held_out, y), np.random.default_rng(seed)
    null = permuted_aurocs(scores, classes, stratum, permutations, rng)
    chances: list[Chance] = []
    stability: Mapping[Site, Reliability] = {}
    if found_on is not None:
        finder = finder or finder_named(in_order[0].finder)
        sites, accuracies = sorted(directions), separated.balanced_accuracy
        stability = reliability(found_on, finder, *labels, sites=sites, seed=seed)
        chances = chance_levels(
            in_order, accuracies, finder, found_on, held_out, relabellings, seed
        )
    observed, outliers = auroc(scores, classes), _outlier_ratios(in_order, held_out)
    rows = tuple(
        ValidationRow(
            site=direction.site,
            auroc=separated.auroc[i],
            balanced_accuracy=separated.balanced_accuracy[i],
            d_prime=separated.d_prime[i],
            gain=separated.gain[i],
            p=permutation_p(float(observed[i]), null[:, i]),
            p_over_sites=permutation_p(float(observed[i]), null.max(axis=1)),
            outlier_ratio=float(outliers[i]),
            baselines=separated.baselines,
            chance=chances[i] if chances else None,
            reliability=stability.get(direction.site),
        )
        for i, direction in enumerate(in_order)
    )
    return Validation(in_order[0].persona, in_order[0].finder, rows)


def _strata(activations: ActivationSet, y: Bool[Tensor, " example"]) -> Int[np.ndarray, " example"]:
    """Within what labels are exchangeable: the pair, and without pairs the family."""
    pairs = pair_index(activations.ids, y)
    return cluster_index(activations.families)[0] if pairs is None else pairs


def _outlier_ratios(
    directions: Sequence[Direction], activations: ActivationSet
) -> Float[Tensor, " site"]:
    """Largest over median standard deviation of a coordinate, over sqrt(d_model), per site."""
    spread = site_first(activations, [direction.site for direction in directions]).std(dim=1)
    ratio = spread.max(dim=-1).values / spread.median(dim=-1).values
    return ratio / math.sqrt(spread.shape[-1])
