"""Logistic regression, mapped back to the residual stream."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.directions.classes import require_both_classes
from persona_probe.directions.design import Design
from persona_probe.directions.finder import Finder
from persona_probe.directions.finders.logistic import logistic_fits
from persona_probe.directions.finders.penalty import chosen_penalty


@dataclass(frozen=True)
class LinearProbe(Finder):
    """Weights of an L2 logistic regression on standardised features, divided by their scale.

    The probe reads w · (x - mean) / scale, so in residual units its normal vector is w / scale.
    That vector separates best, and need not be the one along which the model varies: steer with
    the difference of means by default. A feature that does not vary keeps scale 1. All sites and
    draws share the batched solver in `logistic`; any fit that does not converge there is handed to
    scikit-learn. With fewer examples than features, or collinear ones, the penalty still makes the
    answer unique.

    Attributes:
        c: inverse strength of the L2 penalty, as in scikit-learn; if `None`, chosen at every site
            and in every draw by the log loss on prompt families that were left out, see `penalty`.
        max_iter: limit of the solver's iterations.
        tolerance: largest entry of the gradient at which the solver stops; scikit-learn's own
            default of 1e-4 leaves the direction up to 1e-3 (in 1 - cosine) from the optimum at c of
            100.
    """

    name: ClassVar[str] = "linear_probe"
    c: float | None = 1.0
    max_iter: int = 1_000
    tolerance: float = 1e-5

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,
    ) -> Float[Tensor, "draw site d_model"]:
        require_both_classes(labels, weights)
        if self.c is None:
            families = torch.arange(x.shape[1]) if design is None else design.families
            c = chosen_penalty(x, labels, weights, families, self.max_iter, self.tolerance)
        else:
            c = torch.full((len(labels), len(x)), float(self.c), dtype=torch.float64)
        fits = logistic_fits(x, labels, weights, c, self.max_iter, self.tolerance)
        many = fits.weights
        for draw, site in torch.nonzero(~fits.converged).tolist():
            alone = replace(self, c=float(c[draw, site]))
            many[draw, site] = alone._by_scikit_learn(x[site], labels[draw], weights[draw])
        return many

    def _by_scikit_learn(
        self,
        x: Float[Tensor, "example d_model"],
        y: Bool[Tensor, " example"],
        weights: Float[Tensor, " example"],
    ) -> Float[Tensor, " d_model"]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        kept = weights > 0
        features, counts = x[kept].double().numpy(), weights[kept].numpy()
        scaler = StandardScaler().fit(features, sample_weight=counts)
        probe = LogisticRegression(C=self.c, max_iter=self.max_iter, tol=self.tolerance)
        probe.fit(scaler.transform(features), y[kept].numpy(), sample_weight=counts)
        return torch.from_numpy(probe.coef_[0] / scaler.scale_)
