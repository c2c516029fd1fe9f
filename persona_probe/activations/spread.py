"""How far examples that were read once and never kept lie from their mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spread:
    """Sums over some examples, with z an example minus their mean, in float64.

    The covariance needs the first; how far to shrink it (Ledoit & Wolf 2004) the others too. They
    are joined exactly, although the mean is known only at the end.

    Attributes:
        scatter: of z z'.
        third: of ||z||^2 z.
        fourth: of ||z||^4.
    """

    scatter: Float[Tensor, "site d_model d_model"]
    third: Float[Tensor, "site d_model"]
    fourth: Float[Tensor, " site"]

    @classmethod
    def of(
        cls, values: Float[Tensor, "example site d_model"], mean: Float[Tensor, "site d_model"]
    ) -> "Spread":
        """Of examples with this mean."""
        scatter, third, fourth = [], [], []
        # One site at a time: in float64, everything at once would be several times the batch.
        for site in range(values.shape[1]):
            centred = values[:, site].double() - mean[site].to(values.device)
            squared = centred.square().sum(dim=1)
            scatter.append((centred.T @ centred).cpu())
            third.append((squared @ centred).cpu())
            fourth.append((squared @ squared).cpu())
        return cls(torch.stack(scatter), torch.stack(third), torch.stack(fourth))

    def merged(
        self, n: int, other: "Spread", m: int, gap: Float[Tensor, "site d_model"]
    ) -> "Spread":
        """Of both together.

        Args:
            n: number of examples in this one.
            other: of other examples.
            m: number of examples in that one.
            gap: their mean minus the mean of these.
        """
        mine = self._about(n, -gap * (m / (n + m)))
        theirs = other._about(m, gap * (n / (n + m)))
        between = gap[:, :, None] * gap[:, None, :]
        scatter = between.mul_(n * m / (n + m)).add_(self.scatter).add_(other.scatter)
        return Spread(scatter, mine[0] + theirs[0], mine[1] + theirs[1])

    def _about(
        self, n: int, a: Float[Tensor, "site d_model"]
    ) -> tuple[Float[Tensor, "site d_model"], Float[Tensor, " site"]]:
        """`third` and `fourth` of z + a in place of z, whose mean is 0."""
        trace = self.scatter.diagonal(dim1=1, dim2=2).sum(dim=1)
        turned = (self.scatter @ a[..., None])[..., 0]
        length = a.square().sum(dim=1)
        third = self.third + 2 * turned + a * (trace + n * length)[:, None]
        fourth = self.fourth + 4 * ((self.third + turned) * a).sum(dim=1)
        return third, fourth + 2 * length * trace + n * length**2
