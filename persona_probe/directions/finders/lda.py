"""Linear discriminant analysis with shrunken covariances."""

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
class ShrinkageLDA(Finder):
    """S^-1 (difference of means), S the classes' shrunken covariances averaged by class size.

    What scikit-learn finds with `LinearDiscriminantAnalysis(solver="lsqr",
    covariance_estimator=LedoitWolf())`. A class of few examples is shrunk more than the other one,
    unlike in `WhitenedDifference`, which shrinks both as one. Optimal for classification where both
    classes are normal with equal covariances.

    With fewer examples than dimensions the shrinkage gives S its full rank, and everything is
    computed in the span of the examples. Classes without any variation are refused.
    """

    name: ClassVar[str] = "shrinkage_lda"

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "draw site d_model"]:
        require_both_classes(labels, weights)
        many = x.new_empty(len(labels), len(x), x.shape[2], dtype=torch.float64)
        for both in classes(x, labels, weights, apart=True):
            of = both.spread
            amounts = shrinkage(of.n, of.trace, of.squared, of.fourth, both.width)
            amount, target = (torch.stack(of_both.chunk(2, dim=1)) for of_both in amounts)
            prior = (both.n / both.n.sum(dim=0))[:, None]
            ridge = (prior * amount * target).sum(dim=0)
            many[both.draws, both.sites] = both.divided(prior * (1 - amount), ridge)
        return many

    def of_moments(self, positive: Group, negative: Group) -> Float[Tensor, "site d_model"]:
        share = positive.n / (positive.n + negative.n)
        covariance = shrunk_covariance([positive]) * share
        covariance += shrunk_covariance([negative]) * (1 - share)
        return divided(positive.mean - negative.mean, covariance)
