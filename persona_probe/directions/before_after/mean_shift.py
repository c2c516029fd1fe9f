"""The mean shift as a direction, how steady it is, and what chance would give in its place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.relabelling import balanced_relabellings, exchange_units
from persona_probe.directions.checks.reliability import fits, reliability
from persona_probe.directions.classes import both_classes, site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.families.family import AFTER, BEFORE, Sources, find_family, model_diff
from persona_probe.directions.families.shift import Shift
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate

UNMOVED = 1e-9  # of the median residual norm: below it, a site was not moved at all
STILL = "finetuning did not move this site"


@dataclass(frozen=True)
class MeanShift:
    """The mean shift at the sites that moved.

    Attributes:
        model_diff: as directions to steer with.
        reliability: Spearman-Brown reliability over prompt families.
        flipped: unit vectors of balanced sign flips of the shifts.
    """

    model_diff: dict[Site, Direction]
    reliability: dict[Site, float]
    flipped: dict[Site, Float[Tensor, "draw d_model"]]

    @classmethod
    def of(
        cls, before: ActivationSet, after: ActivationSet, shift: Shift, draws: int, seed: int
    ) -> "MeanShift":
        """Find it, and doubt it.

        Args:
            before: activations before finetuning.
            after: those of the finetuned model on the same examples.
            shift: between the two, at the sites asked for.
            draws: sign flips.
            seed: of the flips and of the halves for the reliability.

        Raises:
            DegenerateClassesError: no site moved.
        """
        norms = site_first(before, shift.sites).norm(dim=-1).median(dim=-1).values
        there = (shift.mean.norm(dim=-1) > UNMOVED * norms).tolist()
        moved = [site for site, has in zip(shift.sites, there, strict=True) if has]
        if not moved:
            raise DegenerateClassesError(
                "before and after coincide at every site: finetuning moved nothing there, or the "
                "same model was captured twice"
            )
        before, after = _only(before, moved), _only(after, moved)
        contrast = model_diff(Sources(before=before, after=after))
        found = find_family("model_diff", Sources(before=before, after=after), persona="model_diff")
        finder, both = MeanDifference(), contrast.activations
        steady = reliability(both, finder, AFTER, BEFORE, seed=seed)
        _, y = both_classes(both, AFTER, BEFORE)
        unit, group = exchange_units(both.ids, y)
        relabelled = balanced_relabellings(y, unit, group, draws, np.random.default_rng(seed))
        flipped = torch.cat(list(fits(finder, site_first(both), *relabelled)))
        return cls(
            model_diff=found,
            reliability={site: row.spearman_brown for site, row in steady.items()},
            flipped=dict(zip(moved, flipped.unbind(dim=1), strict=True)),
        )

    def null_cosine(self, direction: Direction) -> Estimate:
        """|cosine| of a direction to sign-flipped shifts."""
        if direction.site not in self.flipped:
            return Estimate.undefined(STILL)
        along = self.flipped[direction.site] @ direction.unit.double()
        return Estimate.of_draws(along.abs().numpy())


def _only(activations: ActivationSet, sites: Sequence[Site]) -> ActivationSet:
    """The same examples at some of the sites."""
    if tuple(sites) == activations.sites:
        return activations
    return ActivationSet.of(
        torch.stack([activations.site(site) for site in sites], dim=1),
        sites,
        activations.position,
        activations.ids,
        activations.labels,
        activations.families,
        activations.provenance,
    )
