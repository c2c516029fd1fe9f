"""What finetuning moved: the same tokens read before and after, example by example."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import site_first
from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.site import Site
from persona_probe.statistics import cluster_index


@dataclass(frozen=True, eq=False)
class Shift:
    """After minus before, for every example that both models read.

    Attributes:
        name: of the finetune.
        sites: where both were read.
        delta: residual units, float64.
        families: what is resampled as one: the prompt family of each example, or the example
            itself where no family was given.
    """

    name: str
    sites: tuple[Site, ...]
    delta: Float[Tensor, "site example d_model"]
    families: tuple[str, ...]

    @classmethod
    def between(
        cls,
        before: ActivationSet,
        after: ActivationSet,
        sites: Sequence[Site] | None = None,
        name: str = "after",
    ) -> "Shift":
        """The shift at `sites`, at all captured ones if not given.

        Raises:
            RequestError: the two sets do not hold the same examples at the same tokens.
            SiteMismatchError: they were captured at different sites or widths, or not at `sites`.
            PersonaProbeError: an activation is NaN or infinite.
        """
        require_paired(before, after, name)
        chosen = before.sites if sites is None else tuple(sites)
        delta = site_first(after, chosen) - site_first(before, chosen)
        return cls(name, chosen, delta, resampled_as_one(before))

    @property
    def n(self) -> int:
        """Examples."""
        return self.delta.shape[1]

    @cached_property
    def mean(self) -> Float[Tensor, "site d_model"]:
        """The mean shift, which is the direction model_diff before normalising."""
        mean: Tensor = self.delta.mean(dim=1)
        return mean

    @cached_property
    def family_index(self) -> Int[np.ndarray, " example"]:
        """Number of the family of each example."""
        return cluster_index(self.families)[0]

    @cached_property
    def family_sizes(self) -> Float[np.ndarray, " family"]:
        """Examples in each family."""
        sizes: np.ndarray = np.bincount(self.family_index).astype(np.float64)
        return sizes

    @cached_property
    def family_sums(self) -> Float[Tensor, "site family d_model"]:
        """Sum of the shifts of each family: all that a statistic of the mean needs."""
        return self.summed(self.delta)

    def summed(
        self, values: Float[Tensor, "site example column"]
    ) -> Float[Tensor, "site family column"]:
        """Sum of some values of the examples within each family."""
        empty = values.new_zeros(len(values), len(self.family_sizes), values.shape[2])
        return empty.index_add_(1, torch.from_numpy(self.family_index), values)


def resampled_as_one(activations: ActivationSet) -> tuple[str, ...]:
    """The prompt families; the examples themselves where no family was given at all."""
    return activations.families if any(activations.families) else activations.ids


def require_paired(before: ActivationSet, after: ActivationSet, name: str = "after") -> None:
    """Raise `RequestError` unless both hold the same examples, pooled over the same tokens.

    Args:
        before: of the model that was finetuned.
        after: of the finetuned one.
        name: what to call `after` in the message.
    """
    if before.ids != after.ids:
        raise RequestError(
            f"before and {name} hold different examples; capture the same prompts with both models"
        )
    if before.texts is not None and after.texts is not None and before.texts != after.texts:
        row = next(i for i, text in enumerate(before.texts) if text != after.texts[i])
        raise RequestError(
            f"before and {name} read different texts, first in example {before.ids[row]!r}; "
            "capture the same prompts with both models"
        )
    if before.position != after.position:
        raise RequestError(
            f"before was read at {before.position!r} and {name} at {after.position!r}; "
            "choose one position"
        )
    if (before.sites, before.d_model) != (after.sites, after.d_model):
        raise SiteMismatchError(
            f"before has {len(before.sites)} sites of width {before.d_model} and {name} has "
            f"{len(after.sites)} of width {after.d_model}; capture both at the same sites"
        )
