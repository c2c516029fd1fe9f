"""How far out an activation lies among those that the model has on its own."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.before_after.whitening import shrunk_covariance
from persona_probe.errors import DegenerateClassesError

QUANTILE = 0.99
LEAST_HELD_OUT = 100  # tokens, so that a 99th percentile has at least one beyond it
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Radius:
    """Mahalanobis distance from the centre of unsteered activations, and its 99th percentile.

    The covariance is shrunk (Ledoit & Wolf 2004) and comes from one half of the texts, the
    percentile from the other: tokens that a covariance was fitted on lie closer to its centre than
    new ones, the more so the fewer there are.

    Attributes:
        mean: centre of the fitted tokens, float64.
        factor: lower Cholesky factor of their covariance, float64.
        limit: the distance that 1% of unsteered tokens of the other half exceed.
        n_fitted: tokens behind the covariance.
        n_held_out: tokens behind the limit.
    """

    mean: Float[Tensor, " d_model"]
    factor: Float[Tensor, "d_model d_model"]
    limit: float
    n_fitted: int
    n_held_out: int

    @classmethod
    def of(
        cls, fitted: Float[Tensor, "token d_model"], held_out: Float[Tensor, "other d_model"]
    ) -> "Radius":
        """Fit on some tokens, take the percentile on others.

        Raises:
            DegenerateClassesError: too few tokens, with the numbers needed.
        """
        d_model = fitted.shape[1]
        if len(fitted) <= d_model or len(held_out) < LEAST_HELD_OUT:
            raise DegenerateClassesError(
                f"{len(fitted)} + {len(held_out)} steered tokens of neutral text are too few for a "
                f"99th percentile: more than {d_model} + {LEAST_HELD_OUT - 1} are needed"
            )
        unbounded = cls(
            fitted.double().mean(dim=0),
            torch.linalg.cholesky(shrunk_covariance(fitted[None])[0]),
            torch.inf,
            len(fitted),
            len(held_out),
        )
        limit = float(torch.quantile(unbounded.distance(held_out), QUANTILE))
        return cls(unbounded.mean, unbounded.factor, limit, len(fitted), len(held_out))

    def distance(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, " token"]:
        """sqrt((x - m)' S^-1 (x - m)), float64, on the CPU."""
        pieces = [
            torch.linalg.solve_triangular(
                self.factor, (piece.cpu().double() - self.mean).T, upper=False
            ).norm(dim=0)
            for piece in torch.tensor_split(x, max(1, -(-len(x) // CHUNK)))
        ]
        return torch.cat(pieces)
