"""Logistic regression, mapped back to the residual stream."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.directions.finder import Finder
from persona_probe.directions.logistic import logistic_weights


@dataclass(frozen=True)
class LinearProbe(Finder):
    """Weights of an L2 logistic regression on standardised features, divided by their scale.

    The probe reads w · (x - mean) / scale, so in residual units its normal vector is w / scale.
    That vector separates best, and need not be the one along which the model varies: steer with
    the difference of means by default. Fitted in float64; a feature that does not vary keeps
    scale 1. One fit is scikit-learn's; many at once share the batched solver in `logistic`, and any
    of them that does not converge there is handed to scikit-learn.

    Attributes:
        c: inverse strength of the L2 penalty, as in scikit-learn.
        max_iter: limit of the solver's iterations.
        tolerance: largest entry of the gradient at which the solver stops; scikit-learn's own
            default of 1e-4 leaves the direction up to 1e-3 (in 1 - cosine) from the optimum at c of
            100.
    """

    name: ClassVar[str] = "linear_probe"
    c: float = 1.0
    max_iter: int = 1_000
    tolerance: float = 1e-5

    def fit(
        self,
        x: Float[Tensor, "example d_model"],
        y: Bool[Tensor, " example"],
        weights: Float[Tensor, " example"] | None = None,
    ) -> Float[Tensor, " d_model"]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        features, counts = x.double().numpy(), None if weights is None else weights.numpy()
        scaler = StandardScaler().fit(features, sample_weight=counts)
        probe = LogisticRegression(C=self.c, max_iter=self.max_iter, tol=self.tolerance)
        probe.fit(scaler.transform(features), y.numpy(), sample_weight=counts)
        return torch.from_numpy(probe.coef_[0] / scaler.scale_)

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
    ) -> Float[Tensor, "draw site d_model"]:
        if len(labels) == 1:
            return super().fit_many(x, labels, weights)
        many, converged = logistic_weights(
            x.double(), labels, weights, self.c, self.max_iter, self.tolerance
        )
        for draw, site in torch.nonzero(~converged).tolist():
            kept = weights[draw] > 0
            many[draw, site] = self.fit(x[site, kept], labels[draw, kept], weights[draw, kept])
        return many
