"""What finetuning did to the residual stream, against directions that existed before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.before_after.mean_shift import MeanShift
from persona_probe.directions.before_after.whitening import Whitening
from persona_probe.directions.checks.reliability import noise_corrected, reliability
from persona_probe.directions.checks.separation import mean_and_variance, power_sums
from persona_probe.directions.classes import projections, require_found_in, site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, common_sites
from persona_probe.directions.families.parts import energy_shares
from persona_probe.directions.families.products import (
    NO_LENGTH,
    cosine_between,
    cosine_with,
    gram,
    jackknifed,
)
from persona_probe.directions.families.shift import Shift, resampled_as_one
from persona_probe.directions.finders import FINDERS, finder_named
from persona_probe.directions.json_form import json_form
from persona_probe.display import table
from persona_probe.models.site import Site
from persona_probe.statistics import (
    Estimate,
    cluster_index,
    cluster_jackknife,
    cluster_sums,
)
from persona_probe.statistics.bootstrap import Weights

Reliabilities: TypeAlias = Mapping[str, Mapping[Site, float]]  # Spearman-Brown, per persona, site

NO_PLACEBO = Estimate.undefined("no placebo finetune was given")
NO_SEED = Estimate.undefined("no second seed was given")


@dataclass(frozen=True)
class ComparisonRow:
    """One persona's direction at one site, against the shift that finetuning caused.

    Attributes:
        persona: whose direction.
        site: where.
        cosine: of the direction and the mean shift (model_diff); NaN where nothing moved.
        whitened: the same in the metric of the inverse covariance before finetuning.
        corrected: the cosine over the root of both split-half reliabilities; NaN without them.
        null_cosine: |cosine| of the direction to balanced sign flips of the shifts: mean and
            middle 95 % of draws.
        shift: (mean after - mean before) along the direction, in standard deviations before.
        cosine_interval: `cosine` with its interval over prompt families. Noise in the shift makes
            both too small: `debiased` is what to compare across finetunes.
        whitened_interval: `whitened` with its interval.
        debiased: the cosine to the shift without the shift's sampling noise, whose length is taken
            from products of different families; not clipped. The direction's own noise remains.
        floor: cosine of the direction to the shift of a placebo finetune.
        ceiling: cosine between this shift and that of a second seed of the same finetune.
    """

    persona: str
    site: Site
    cosine: float
    whitened: float
    corrected: float
    null_cosine: Estimate
    shift: Estimate
    cosine_interval: Estimate
    whitened_interval: Estimate
    debiased: Estimate
    floor: Estimate = NO_PLACEBO
    ceiling: Estimate = NO_SEED

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        plain: dict[str, Any] = json_form(self)
        return plain


@dataclass(frozen=True)
class Comparison:
    """A finetuned model against its starting point, at the sites that all directions have.

    Attributes:
        rows: one per persona and site.
        model_diff: the mean shift at each site that moved, as directions to steer with.
        model_diff_reliability: its Spearman-Brown reliability over prompt families.
        personas: in the order of `cosines`.
        cosines: cosine matrix of the personas' directions, per site.
        energy: ||p_c||^2 / ||d_c||^2 per site and persona; empty for a single persona.
        whitened_cosines: `cosines` in the metric of the inverse covariance before finetuning.
    """

    rows: tuple[ComparisonRow, ...]
    model_diff: dict[Site, Direction]
    model_diff_reliability: dict[Site, float]
    personas: tuple[str, ...]
    cosines: dict[Site, list[list[float]]]
    energy: dict[Site, dict[str, float]]
    whitened_cosines: dict[Site, list[list[float]]] = field(default_factory=dict)

    def at(self, persona: str, site: Site) -> ComparisonRow:
        """The row of one persona at one site."""
        return next(row for row in self.rows if (row.persona, row.site) == (persona, site))

    def _repr_html_(self) -> str:
        columns = ("cosine_interval", "debiased", "null_cosine", "floor", "ceiling", "shift")
        heads = ["cosine", "debiased", "sign flips", "placebo", "second seed", "shift, sd"]
        rows = [
            [row.persona, row.site.layer, *(getattr(row, column) for column in columns)]
            for row in self.rows
        ]
        told = "Comparison: directions with the shift of finetuning, 95 % over families"
        return table(["persona", "layer", *heads], rows, told)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, without the vectors."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "model_diff_reliability": json_form(self.model_diff_reliability),
            "personas": list(self.personas),
            "cosines": json_form(self.cosines),
            "energy": json_form(self.energy),
            "whitened_cosines": json_form(self.whitened_cosines),
        }


def compare(
    before: ActivationSet,
    after: ActivationSet,
    directions: DirectionSet,
    *,
    placebo: ActivationSet | None = None,
    second_seed: ActivationSet | None = None,
    reliabilities: Reliabilities | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Comparison:
    """Compare a model before and after finetuning on the same tokens.

    Args:
        before: activations of the model that was finetuned, on families that no direction was
            found on.
        after: activations of the finetuned model on the same examples in the same order.
        directions: found before finetuning.
        placebo: activations of a finetune on harmless replies, on the same examples: the floor.
        second_seed: activations of another seed of the same finetune: the ceiling.
        reliabilities: of the directions, as `Reliability.spearman_brown` has them.
        draws: balanced sign flips for the null of the cosine.
        seed: of those, and of the halves of the reliability.

    Raises:
        RequestError: the sets do not hold the same examples.
        SiteMismatchError: a direction was found in another model, or at a site not captured.
        SplitLeakError: a direction was found or selected on one of their families.
        DegenerateClassesError: finetuning moved nothing at any site.
    """
    sites = common_sites(directions)
    per_persona = {name: [by_site[s] for s in sites] for name, by_site in directions.items()}
    for several in per_persona.values():
        require_found_in(several, before)
        for direction in several:
            direction.check_held_out(before.families)
    shift = Shift.between(before, after, sites)
    white = Whitening.of(site_first(before, sites))
    units = torch.stack([torch.stack([d.unit.double() for d in s]) for s in per_persona.values()])
    cosine, debiased = _cosines(units, shift)
    whitened, _ = _cosines(units, shift, white)
    floor = ceiling = None
    if placebo is not None:
        floor, _ = _cosines(units, Shift.between(before, placebo, sites, "the placebo"))
    if second_seed is not None:
        ceiling = _between(shift, Shift.between(before, second_seed, sites, "the second seed"))
    mean = MeanShift.of(before, after, shift, draws, seed)
    rows = []
    for p, (persona, several) in enumerate(per_persona.items()):
        moved = _projection_shifts(before, after, several)
        for i, direction in enumerate(several):
            site, at = direction.site, p * len(sites) + i
            known = (reliabilities or {}).get(persona, {}).get(site, math.nan)
            trust = mean.reliability.get(site, math.nan)
            raw = direction.cosine(mean.model_diff[site]) if site in mean.model_diff else math.nan
            rows.append(
                ComparisonRow(
                    persona=persona,
                    site=site,
                    cosine=raw,
                    whitened=whitened[at].value,
                    corrected=noise_corrected(raw, known, trust),
                    null_cosine=mean.null_cosine(direction),
                    shift=moved[i],
                    cosine_interval=cosine[at],
                    whitened_interval=whitened[at],
                    debiased=debiased[at],
                    floor=NO_PLACEBO if floor is None else floor[at],
                    ceiling=NO_SEED if ceiling is None else ceiling[i],
                )
            )
    among = white(units.transpose(0, 1))
    among = among / among.norm(dim=-1, keepdim=True)
    return Comparison(
        rows=tuple(rows),
        model_diff=mean.model_diff,
        model_diff_reliability=mean.reliability,
        personas=tuple(directions),
        cosines={site: cosine_matrix(directions, site) for site in sites},
        energy=energy_shares(directions) if len(directions) > 1 else {},
        whitened_cosines=dict(zip(sites, (among @ among.transpose(1, 2)).tolist(), strict=True)),
    )


def reliabilities(
    directions: DirectionSet, prompted: ActivationSet, seed: int = 0
) -> dict[str, dict[Site, float]]:
    """Split-half reliability of directions, from the activations they were found in.

    Directions that these activations do not tell of (other labels, or no finder that is known, as
    for sums and parts) are left out.

    Args:
        directions: of any personas.
        prompted: all families, those that the directions were found on included.
        seed: of the halves.
    """
    found: dict[str, dict[Site, float]] = {}
    for persona, by_site in directions.items():
        first = next(iter(by_site.values()))
        labels = first.positive_label, first.negative_label
        used = prompted.where(families=first.families_used)
        if first.finder in FINDERS and set(labels) <= set(used.labels):
            finder, sites = finder_named(first.finder), sorted(by_site)
            steady = reliability(used, finder, *labels, sites=sites, seed=seed)
            found[persona] = {site: row.spearman_brown for site, row in steady.items()}
    return found


def cosine_matrix(directions: DirectionSet, site: Site) -> list[list[float]]:
    """Cosines between the personas' directions at one site, in the order of the set."""
    several = [by_site[site] for by_site in directions.values()]
    return [[one.cosine(other) for other in several] for one in several]


def _cosines(
    units: Float[Tensor, "row site d_model"], shift: Shift, white: Whitening | None = None
) -> tuple[list[Estimate], list[Estimate]]:
    """Cosine of every direction to the mean shift at its site, raw and debiased, row by row."""
    sums = shift.family_sums
    if white is not None:
        sums, turned = white(sums), white(units.transpose(0, 1)).transpose(0, 1)
        units = turned / turned.norm(dim=-1, keepdim=True)
    along = torch.einsum("rsd,sfd->rsf", units, sums).numpy()
    statistic = cosine_with(along, gram(sums, sums), shift.family_sizes)
    found = jackknifed(statistic, shift, NO_LENGTH)
    return found[: len(found) // 2], found[len(found) // 2 :]


def _between(one: Shift, other: Shift) -> list[Estimate]:
    """Cosine of two mean shifts at every site."""
    a, b = one.family_sums, other.family_sums
    statistic = cosine_between(gram(a, b), gram(a, a), gram(b, b))
    return jackknifed(statistic, one, NO_LENGTH)[: len(one.sites)]


def _projection_shifts(
    before: ActivationSet, after: ActivationSet, directions: Sequence[Direction]
) -> list[Estimate]:
    """Mean of (after - before) over the deviation of before, along each direction."""
    old = projections(directions, before).numpy()
    moved = projections(directions, after).numpy() - old
    family, n_families = cluster_index(resampled_as_one(before))
    totals = cluster_sums(moved, family, n_families)
    deviation = power_sums(old, np.ones(len(before), dtype=bool), family, n_families)

    def statistic(weights: Weights) -> Float[np.ndarray, "draw site"]:
        n = weights @ deviation[0].T
        _, variance = mean_and_variance(weights, deviation)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((weights @ totals.T) / n / np.sqrt(variance))

    return cluster_jackknife(statistic, len(before), n_families)
