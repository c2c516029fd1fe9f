"""Does a direction separate its classes on prompts it has never seen, and better than chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.chance import chance_levels
from persona_probe.directions.checks.contenders import (
    FLIPPED,
    named_contenders,
    one_minus,
    random_contenders,
)
from persona_probe.directions.checks.controls import BySite
from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.leaks import as_found, require_disjoint, require_part
from persona_probe.directions.checks.online_code import online_codes
from persona_probe.directions.checks.outliers import loudness, quietened
from persona_probe.directions.checks.reliability import (
    left_out_directions,
    reliability_of,
    resampled_directions,
)
from persona_probe.directions.checks.separation import (
    auroc,
    auroc_intervals,
    permuted_aurocs,
    separation,
)
from persona_probe.directions.checks.surface import captured_scores, surface_scores
from persona_probe.directions.checks.validation_row import Validation, ValidationRow
from persona_probe.directions.checks.variance_share import variance_shares
from persona_probe.directions.classes import site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import Finder
from persona_probe.directions.finders import finder_named
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split
from persona_probe.provenance import content_hash
from persona_probe.statistics import Estimate, holm, permutation_p

__all__ = ["Validation", "ValidationRow", "validate"]

Columns = dict[str, Sequence[Any]]  # field of a row -> its value at every site


@dataclass(frozen=True)
class _Effort:
    permutations: int
    relabellings: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Case:
    """Directions in order of depth, the examples that judge them, and those they were found on."""

    directions: tuple[Direction, ...]
    held_out: Labelled
    found_on: Labelled | None
    finder: Finder | None
    effort: _Effort

    @property
    def units(self) -> Float[Tensor, "site d_model"]:
        return torch.stack([direction.unit.double() for direction in self.directions])

    @property
    def by_site(self) -> dict[Site, Direction]:
        return {direction.site: direction for direction in self.directions}

    def areas(self, units: Float[Tensor, "site d_model"]) -> list[Estimate]:
        """Held-out AUROC of one vector per site, with intervals as everything else."""
        scores = torch.einsum("sed,sd->se", self.held_out.x, units).numpy()
        return auroc_intervals(scores, self.held_out.y.numpy(), self.held_out.families)


def validate(
    directions: Mapping[Site, Direction],
    held_out: ActivationSet,
    found_on: ActivationSet | None = None,
    finder: Finder | None = None,
    *,
    baselines: Mapping[str, Float[np.ndarray, " example"]] | None = None,
    captured: Mapping[str, ActivationSet] | None = None,
    wrong: Mapping[str, BySite] | None = None,
    nuisances: Mapping[str, BySite] | None = None,
    reference: ActivationSet | None = None,
    split: Split | None = None,
    permutations: int = 2_000,
    relabellings: int = 99,
    seed: int = 0,
) -> Validation:
    """Validate one persona's directions at all their sites, together.

    Args:
        directions: of one persona, found on one contrast.
        held_out: activations of families that were used neither to find nor to select. Examples
            with other labels are ignored.
        found_on: the activations they were found on, for reliability, chance and text baselines;
            families that they were not found on are left out.
        finder: the one that found them; the one of that name with default settings if not given.
        baselines: further scores of the held-out examples of the two classes, in their order.
        captured: further baselines as activations of the same conversations elsewhere, such as
            the embedding layer; needs `found_on`.
        wrong: name → directions of other personas, which should separate less.
        nuisances: name → directions to take away (refusal, length, format, the shared part).
        reference: activations before finetuning whose principal components the directions are
            held against; the examples of both classes if not given.
        split: the one that the directions were found under; then `held_out` must be of its
            evaluate part.
        permutations: of the held-out labels.
        relabellings: balanced shuffles and control tasks, each a new fit, and random directions.
        seed: of everything random.

    Raises:
        SplitLeakError: a held-out family had been used to find or to select, or is in `found_on`.
        DegenerateClassesError: a class is missing.
    """
    in_order = tuple(directions[site] for site in sorted(directions))
    labels = in_order[0].positive_label, in_order[0].negative_label
    held = Labelled.of(held_out, *labels, sites=sorted(directions))
    require_part(in_order, held.activations, "evaluate", split)
    found = None
    if found_on is not None:
        require_disjoint(found_on, held.activations)
        found = Labelled.of(as_found(in_order, found_on), *labels, sites=sorted(directions))
        finder = finder or finder_named(in_order[0].finder)
    effort = _Effort(permutations, relabellings, seed)
    case = _Case(in_order, held, found, finder, effort)
    columns = _separated(case, dict(baselines or {}), captured or {})
    columns |= _permuted(case) | _controlled(case, columns["auroc"], wrong or {}, nuisances or {})
    columns |= _found_again(case, columns["balanced_accuracy"], reference)
    rows = tuple(
        ValidationRow(site=direction.site, **{name: of[i] for name, of in columns.items()})
        for i, direction in enumerate(in_order)
    )
    first, used = in_order[0], frozenset[str]().union(*(d.families_used for d in in_order))
    return Validation(
        persona=first.persona,
        finder=first.finder,
        rows=rows,
        effort=asdict(case.effort),
        split_hash=first.split_hash,
        used_hash=content_hash(sorted(used)),
        held_out_hash=content_hash(sorted(set(case.held_out.families))),
    )


def _separated(
    case: _Case,
    baselines: dict[str, Float[np.ndarray, " example"]],
    captured: Mapping[str, ActivationSet],
) -> Columns:
    """AUROC, balanced accuracy, d' and the gain over whatever reads the surface."""
    if case.found_on is not None:
        seen = case.found_on
        baselines |= surface_scores(seen.activations, seen.y, case.held_out.activations)
        baselines |= captured_scores(captured, seen, case.held_out)
    found = separation(
        torch.einsum("sed,sd->se", case.held_out.x, case.units).numpy(),
        np.array([direction.midpoint for direction in case.directions]),
        baselines,
        case.held_out.y.numpy(),
        case.held_out.families,
    )
    return {
        "auroc": found.auroc,
        "balanced_accuracy": found.balanced_accuracy,
        "d_prime": found.d_prime,
        "gain": found.gain,
        "baselines": [found.baselines] * len(case.directions),
    }


def _permuted(case: _Case) -> Columns:
    """Permutation p at each site, over all sites (max-T), and by Holm."""
    scores, y = torch.einsum("sed,sd->se", case.held_out.x, case.units).numpy(), case.held_out.y
    rng = np.random.default_rng(case.effort.seed)
    strata = case.held_out.strata()
    null = permuted_aurocs(scores, y.numpy(), strata, case.effort.permutations, rng)
    observed = [float(area) for area in auroc(scores, y.numpy())]
    p = [permutation_p(area, null[:, i]) for i, area in enumerate(observed)]
    return {
        "p": p,
        "p_over_sites": [permutation_p(area, null.max(axis=1)) for area in observed],
        "p_holm": [float(adjusted) for adjusted in holm(p)],
    }


def _controlled(
    case: _Case,
    true: Sequence[Estimate],
    wrong: Mapping[str, BySite],
    nuisances: Mapping[str, BySite],
) -> Columns:
    """AUROC of directions that should separate less, and how loud the loudest coordinate is."""
    effort = case.effort
    drawn = random_contenders(case.held_out, case.found_on, effort.relabellings, effort.seed)
    named = named_contenders(case.by_site, case.held_out, wrong, nuisances)
    return {
        "controls": [
            {**random, FLIPPED: one_minus(area), **named[direction.site]}
            for random, area, direction in zip(drawn, true, case.directions, strict=True)
        ],
        "outlier_ratio": loudness(case.held_out.x).amax(dim=-1).tolist(),
    }


def _found_again(
    case: _Case, accuracies: Sequence[Estimate], reference: ActivationSet | None
) -> Columns:
    """What needs new fits to the examples that the directions were found on."""
    data, finder, effort = case.found_on, case.finder, case.effort
    left_out, n_units = None, 0
    columns: Columns = {}
    if data is not None and finder is not None:
        resampled = resampled_directions(data, finder, seed=effort.seed)
        left_out, n_units = left_out_directions(data, finder), int(data.resampled().max()) + 1
        steady = reliability_of(data, finder, resampled, seed=effort.seed)
        quiet = quietened(data, finder)
        areas = case.areas(quiet.masked), case.areas(quiet.standardised)
        columns = {
            "reliability": [steady[direction.site] for direction in case.directions],
            "chance": chance_levels(
                case.directions,
                accuracies,
                finder,
                data,
                case.held_out,
                effort.relabellings,
                effort.seed,
            ),
            "online_code": online_codes(data, finder, seed=effort.seed),
            "without_outliers": quiet.rows(case.units, *areas),
        }
    columns["variance_share"] = variance_shares(
        case.units,
        left_out,
        _reference(case, reference),
        effort.relabellings,
        effort.seed,
        n_units,
    )
    return columns


def _reference(
    case: _Case, reference: ActivationSet | None
) -> Float[Tensor, "site example d_model"]:
    """Activations before finetuning: those of both classes where no others are given.

    Not of one class: under one system line nothing varies along what system lines change.
    """
    if reference is not None:
        return site_first(reference, [direction.site for direction in case.directions])
    return case.held_out.x if case.found_on is None else case.found_on.x
