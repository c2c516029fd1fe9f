"""Two classes of activations, read once, with all that validation asks of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.relabelling import class_group, exchange_units, pair_index
from persona_probe.directions.classes import both_classes, site_first
from persona_probe.directions.design import Design
from persona_probe.models.site import Site
from persona_probe.statistics import cluster_index

MIN_FAMILIES = 4  # of each kind; below this, pairs or single examples are resampled instead


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples of two classes at some sites.

    Attributes:
        x: their activations, float64.
        y: true for the positive class.
        activations: the same examples, with what is known of each.
        design: sites, families and pairs, for finders that need them.
    """

    x: Float[Tensor, "site example d_model"]
    y: Bool[Tensor, " example"]
    activations: ActivationSet
    design: Design

    @classmethod
    def of(
        cls,
        activations: ActivationSet,
        positive_label: str,
        negative_label: str,
        sites: Sequence[Site] | None = None,
    ) -> "Labelled":
        """The examples with one of the two labels; all captured sites if none are given.

        Raises:
            DegenerateClassesError: a class is empty.
            PersonaProbeError: an activation is NaN or infinite.
        """
        chosen, y = both_classes(activations, positive_label, negative_label)
        return cls(site_first(chosen, sites), y, chosen, Design.of(chosen, y, sites))

    @property
    def families(self) -> tuple[str, ...]:
        """Prompt family of each example."""
        return self.activations.families

    @property
    def ones(self) -> Float[Tensor, "1 example"]:
        """Weights of one fit to everything."""
        return torch.ones(1, len(self.y))

    def exchangeable(self) -> tuple[Int[np.ndarray, " example"], Int[np.ndarray, " unit"]]:
        """What is relabelled as one, and the group it is balanced within; see `relabelling`."""
        return exchange_units(self.activations.ids, self.y)

    def resampled(self) -> Int[np.ndarray, " example"]:
        """What is drawn as one: the prompt family, or the pair where there are few families."""
        family, _ = cluster_index(self.families)
        if np.unique(class_group(family, self.y), return_counts=True)[1].min() < MIN_FAMILIES:
            return self.exchangeable()[0]
        return family

    def strata(self) -> Int[np.ndarray, " example"]:
        """Within what labels are exchangeable: the pair, and without pairs the family."""
        pairs = pair_index(self.activations.ids, self.y)
        return cluster_index(self.families)[0] if pairs is None else pairs
