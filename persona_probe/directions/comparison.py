"""What finetuning did to the residual stream, against directions that existed before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import both_classes, projections, site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.finder import find_directions
from persona_probe.directions.mean_difference import MeanDifference
from persona_probe.directions.opposed import opposed
from persona_probe.directions.parts import common_sites, energy_shares
from persona_probe.directions.relabelling import balanced_relabellings, exchange_units
from persona_probe.directions.reliability import fits, noise_corrected, reliability
from persona_probe.directions.separation import mean_and_variance, power_sums
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import (
    Estimate,
    cluster_bootstrap,
    cluster_index,
    cluster_sums,
    json_number,
)
from persona_probe.statistics.bootstrap import Weights

AFTER, BEFORE = "after", "before"
Reliabilities: TypeAlias = Mapping[str, Mapping[Site, float]]  # Spearman-Brown, per persona, site


@dataclass(frozen=True)
class ComparisonRow:
    """One persona's direction at one site, against the shift that finetuning caused.

    Attributes:
        persona: whose direction.
        site: where.
        cosine: of the direction and the mean shift (model_diff).
        whitened: the same in the metric of the inverse covariance before finetuning.
        corrected: the cosine over the root of both split-half reliabilities; NaN without them.
        null_cosine: |cosine| of the direction to balanced sign flips of the shifts: mean and
            middle 95 % of draws.
        shift: (mean after - mean before) along the direction, in standard deviations before.
    """

    persona: str
    site: Site
    cosine: float
    whitened: float
    corrected: float
    null_cosine: Estimate
    shift: Estimate

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "persona": self.persona,
            "layer": self.site.layer,
            "cosine": self.cosine,
            "whitened": self.whitened,
            "corrected": json_number(self.corrected),
            "null_cosine": self.null_cosine.to_json(),
            "shift": self.shift.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """A finetuned model against its starting point, at the sites that all directions have.

    Attributes:
        rows: one per persona and site.
        model_diff: the mean shift at each site, as directions that can be steered with.
        model_diff_reliability: its Spearman-Brown reliability over prompt families.
        personas: in the order of `cosines`.
        cosines: cosine matrix of the personas' directions, per site.
        energy: ||p_c||^2 / ||d_c||^2 per site and persona; empty for a single persona.
    """

    rows: tuple[ComparisonRow, ...]
    model_diff: dict[Site, Direction]
    model_diff_reliability: dict[Site, float]
    personas: tuple[str, ...]
    cosines: dict[Site, list[list[float]]]
    energy: dict[Site, dict[str, float]]

    def at(self, persona: str, site: Site) -> ComparisonRow:
        """The row of one persona at one site."""
        return next(row for row in self.rows if (row.persona, row.site) == (persona, site))

    def to_json(self) -> dict[str, Any]:
        """A plain dict, without the vectors."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "model_diff_reliability": {
                site.layer: json_number(r) for site, r in self.model_diff_reliability.items()
            },
            "personas": list(self.personas),
            "cosines": {site.layer: matrix for site, matrix in self.cosines.items()},
            "energy": {site.layer: shares for site, shares in self.energy.items()},
        }


def compare(
    before: ActivationSet,
    after: ActivationSet,
    directions: DirectionSet,
    *,
    reliabilities: Reliabilities | None = None,
    draws: int = 200,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare a model before and after finetuning on the same tokens.

    Args:
        before: activations of the model that was finetuned, on families that no direction was
            found on.
        after: activations of the finetuned model on the same examples in the same order.
        directions: found before finetuning.
        reliabilities: of the directions, as `Reliability.spearman_brown` has them.
        draws: balanced sign flips for the null of the cosine.
        resamples: bootstrap draws of families.
        seed: of both.

    Raises:
        RequestError: the two sets do not hold the same examples.
        SplitLeakError: a direction was found or selected on one of their families.
    """
    if before.ids != after.ids:
        raise RequestError("before and after hold different examples; capture the same prompts")
    sites = common_sites(directions)
    for persona in directions:
        for site in sites:
            directions[persona][site].check_held_out(before.families)
    shift = _Shift.between(before, after, sites, draws, seed)
    rows = []
    for persona, by_site in directions.items():
        several = [by_site[site] for site in sites]
        moved = _projection_shifts(before, after, several, resamples=resamples, seed=seed)
        for i, direction in enumerate(several):
            known = (reliabilities or {}).get(persona, {}).get(direction.site, math.nan)
            rows.append(shift.row(persona, direction, i, known, moved[i]))
    return Comparison(
        rows=tuple(rows),
        model_diff=shift.directions,
        model_diff_reliability=shift.reliability,
        personas=tuple(directions),
        cosines={site: cosine_matrix(directions, site) for site in sites},
        energy=energy_shares(directions) if len(directions) > 1 else {},
    )


def cosine_matrix(directions: DirectionSet, site: Site) -> list[list[float]]:
    """Cosines between the personas' directions at one site, in the order of the set."""
    several = [by_site[site] for by_site in directions.values()]
    return [[one.cosine(other) for other in several] for one in several]


@dataclass(frozen=True)
class _Shift:
    """What finetuning moved at each site, and what is needed to compare directions with it."""

    directions: dict[Site, Direction]
    reliability: dict[Site, float]
    inverse_covariance: Float[Tensor, "site d_model d_model"]
    flipped: Float[Tensor, "draw site d_model"]

    @classmethod
    def between(
        cls,
        before: ActivationSet,
        after: ActivationSet,
        sites: Sequence[Site],
        draws: int,
        seed: int,
    ) -> "_Shift":
        finder, both = MeanDifference(), opposed(after, before, (AFTER, BEFORE))
        found = find_directions(
            both, finder, AFTER, BEFORE, family="model_diff", persona="model_diff"
        )
        steady = reliability(both, finder, AFTER, BEFORE, sites=sites, seed=seed)
        _, y = both_classes(both, AFTER, BEFORE)
        unit, group = exchange_units(both.ids, y)
        rng = np.random.default_rng(seed)
        relabelled = balanced_relabellings(y, unit, group, draws, rng)
        return cls(
            directions={site: found[site] for site in sites},
            reliability={site: row.spearman_brown for site, row in steady.items()},
            inverse_covariance=_inverse_covariance(before, sites),
            flipped=torch.cat(list(fits(finder, site_first(both, sites), *relabelled))),
        )

    def row(
        self, persona: str, direction: Direction, i: int, trust: float, moved: Estimate
    ) -> ComparisonRow:
        """One persona's direction, of reliability `trust`, at the i-th site."""
        site = direction.site
        cosine = direction.cosine(self.directions[site])
        return ComparisonRow(
            persona=persona,
            site=site,
            cosine=cosine,
            whitened=_whitened_cosine(direction, self.directions[site], self.inverse_covariance[i]),
            corrected=noise_corrected(cosine, trust, self.reliability[site]),
            null_cosine=Estimate.of_draws(
                (self.flipped[:, i] @ direction.unit.double()).abs().numpy()
            ),
            shift=moved,
        )


def _projection_shifts(
    before: ActivationSet, after: ActivationSet, directions: Sequence[Direction], **options: Any
) -> list[Estimate]:
    """Mean of (after - before) over the deviation of before, along each direction."""
    old = projections(directions, before).numpy()
    moved = projections(directions, after).numpy() - old
    family, n_families = cluster_index(before.families)
    totals = cluster_sums(moved, family, n_families)
    deviation = power_sums(old, np.ones(len(before), dtype=bool), family, n_families)

    def statistic(weights: Weights) -> Float[np.ndarray, "draw site"]:
        n = weights @ deviation[0].T
        _, variance = mean_and_variance(weights, deviation)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((weights @ totals.T) / n / np.sqrt(variance))

    return cluster_bootstrap(statistic, len(before), n_families, **options)


def _inverse_covariance(
    activations: ActivationSet, sites: Sequence[Site]
) -> Float[Tensor, "site d_model d_model"]:
    """Inverse of the Ledoit-Wolf shrunk covariance at each site."""
    from sklearn.covariance import ledoit_wolf

    shrunk = [ledoit_wolf(at_site.numpy())[0] for at_site in site_first(activations, sites)]
    inverse: Tensor = torch.linalg.inv(torch.from_numpy(np.stack(shrunk)))
    return inverse


def _whitened_cosine(
    one: Direction, other: Direction, inverse: Float[Tensor, "d_model d_model"]
) -> float:
    """Cosine in the metric of the inverse covariance: u' S^-1 v / sqrt(u' S^-1 u v' S^-1 v)."""
    pair = torch.stack([one.unit.double(), other.unit.double()])
    gram = pair @ inverse @ pair.T
    return float(gram[0, 1] / torch.sqrt(gram[0, 0] * gram[1, 1]))
