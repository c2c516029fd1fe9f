"""Difference of class means."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.moments import Group
from persona_probe.directions.classes import class_contrast
from persona_probe.directions.design import Design
from persona_probe.directions.finder import Finder


@dataclass(frozen=True)
class MeanDifference(Finder):
    """Mean of the positive class minus mean of the negative class, in residual units.

    The classes need be neither paired nor equally large. The most reliable of the simple finders
    for steering (Marks & Tegmark 2023, arXiv:2310.06824) and for detection (Wu et al. 2025,
    arXiv:2501.17148).
    """

    name: ClassVar[str] = "mean_difference"

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "draw site d_model"]:
        """One matrix product per site: a difference of means is linear in the examples."""
        return (class_contrast(labels, weights) @ x.double()).transpose(0, 1)

    def of_moments(self, positive: Group, negative: Group) -> Float[Tensor, "site d_model"]:
        return positive.mean - negative.mean
