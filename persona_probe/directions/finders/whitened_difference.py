"""Difference of class means, divided by the covariance within the classes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.moments import Group
from persona_probe.directions.classes import require_both_classes
from persona_probe.directions.design import Design
from persona_probe.directions.finder import Finder
from persona_probe.directions.finders.scatter import classes
from persona_probe.directions.finders.shrinkage import divided, shrinkage, shrunk_covariance


@dataclass(frozen=True)
class WhitenedDifference(Finder):
    """S^-1 (mean of the positive class - mean of the negative class).

    S is the covariance within the classes: of all examples, each about the mean of its class,
    shrunk by Ledoit & Wolf. Reading along the result is reading along the difference of means after
    whitening, so axes that vary much without telling the classes apart count less: Marks & Tegmark
    2023 (arXiv:2310.06824) call it the mass-mean probe. It separates better than the difference of
    means; steer with the latter by default. `ShrinkageLDA` differs in shrinking each class by
    itself.

    With fewer examples than dimensions the shrinkage gives S its full rank, and everything is
    computed in the span of the examples. Classes without any variation are refused.
    """

    name: ClassVar[str] = "whitened_difference"

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "draw site d_model"]:
        require_both_classes(labels, weights)
        many = x.new_empty(len(labels), len(x), x.shape[2], dtype=torch.float64)
        for both in classes(x, labels, weights, apart=False):
            of = both.spread
            amount, target = shrinkage(of.n, of.trace, of.squared, of.fourth, both.width)
            keep = (both.n / both.n.sum(dim=0))[:, None] * (1 - amount)
            many[both.draws, both.sites] = both.divided(keep, amount * target)
        return many

    def of_moments(self, positive: Group, negative: Group) -> Float[Tensor, "site d_model"]:
        covariance = shrunk_covariance([positive, negative])
        return divided(positive.mean - negative.mean, covariance)
