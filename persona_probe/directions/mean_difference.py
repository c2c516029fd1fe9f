"""Difference of class means."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.directions.finder import Finder


@dataclass(frozen=True)
class MeanDifference(Finder):
    """Mean of the positive class minus mean of the negative class, in residual units.

    The classes need be neither paired nor equally large. The most reliable of the simple finders
    for steering (Marks & Tegmark 2023, arXiv:2310.06824) and for detection (Wu et al. 2025,
    arXiv:2501.17148).
    """

    name: ClassVar[str] = "mean_difference"

    def fit(
        self,
        x: Float[Tensor, "example d_model"],
        y: Bool[Tensor, " example"],
        weights: Float[Tensor, " example"] | None = None,
    ) -> Float[Tensor, " d_model"]:
        counts = torch.ones(len(y)) if weights is None else weights
        return self.fit_many(x[None], y[None], counts[None])[0, 0]

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
    ) -> Float[Tensor, "draw site d_model"]:
        """One matrix product per site: a difference of means is linear in the examples."""
        positive = labels * weights.double()
        negative = ~labels * weights.double()
        contrast = positive / positive.sum(dim=1, keepdim=True)
        contrast -= negative / negative.sum(dim=1, keepdim=True)
        return (contrast @ x.double()).transpose(0, 1)
