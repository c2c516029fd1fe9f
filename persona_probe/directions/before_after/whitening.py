"""The metric in which activations vary equally along all axes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.finders.shrinkage import shrinkage


@dataclass(frozen=True, eq=False)
class Whitening:
    """Maps that give activations unit covariance, one per site.

    Attributes:
        factor: lower Cholesky factor L of the shrunk covariance S = L L'.
    """

    factor: Float[Tensor, "site d_model d_model"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d_model"]) -> "Whitening":
        """From activations, by the Ledoit-Wolf covariance of each site."""
        return cls(torch.linalg.cholesky(shrunk_covariance(x)))

    def __call__(
        self, vectors: Float[Tensor, "site row d_model"]
    ) -> Float[Tensor, "site row d_model"]:
        """L^-1 v, so that inner products become u' S^-1 v."""
        columns = vectors.transpose(1, 2)
        solved: Tensor = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return solved.transpose(1, 2).contiguous()


def shrunk_covariance(
    x: Float[Tensor, "site example d_model"],
) -> Float[Tensor, "site d_model d_model"]:
    """Covariance shrunk towards a multiple of the identity, of all sites at once.

    By the amount of Ledoit & Wolf; see `shrinkage`. Full rank also with fewer examples than
    dimensions.
    """
    n, d = x.shape[1:]
    centred = x.double() - x.double().mean(dim=1, keepdim=True)
    sample = centred.transpose(1, 2) @ centred / n
    trace = sample.diagonal(dim1=1, dim2=2).sum(dim=1)
    squared = sample.square().sum(dim=(1, 2))
    fourth = centred.square().sum(dim=2).square().mean(dim=1)
    amount, target = shrinkage(torch.full_like(trace, n), trace, squared, fourth, d)
    shrunk: Tensor = (1 - amount)[:, None, None] * sample
    shrunk.diagonal(dim1=1, dim2=2).add_((amount * target)[:, None])
    return shrunk
