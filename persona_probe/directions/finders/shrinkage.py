"""How far to shrink a covariance that was estimated from few examples."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.moments import Group
from persona_probe.errors import DegenerateClassesError, RequestError

NO_INVERSE = (
    "the examples vary too little within their classes for a covariance that can be divided by; "
    "add examples, or use mean_difference"
)


def shrinkage(
    n: Float[Tensor, "*batch"],
    trace: Float[Tensor, "*batch"],
    squared: Float[Tensor, "*batch"],
    fourth: Float[Tensor, "*batch"],
    width: int,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """How much to shrink a covariance S, and the multiple of the identity to shrink it towards.

    The best estimate is (1 - a) S + a m I with m = tr S / d and a = min(b, e) / e, where
    e = ||S||^2 - d m^2 is how far S is from its target and b = (mean ||x||^4 - ||S||^2) / n how far
    it is from the truth, by chance. Ledoit & Wolf 2004
    (https://doi.org/10.1016/S0047-259X(03)00096-4), as in `sklearn.covariance.ledoit_wolf`.

    Args:
        n: number of examples.
        trace: of S, which divides by n.
        squared: sum of the squared entries of S.
        fourth: mean over the examples of the fourth power of the distance from their mean.
        width: d, the number of dimensions.

    Returns:
        a and m.
    """
    target = trace / width
    off = (squared - width * target**2).clamp_min(0)
    chance = ((fourth - squared) / n).clamp_min(0)
    return torch.where(off > 0, torch.minimum(chance, off) / off, 0.0), target


def shrunk_covariance(groups: Sequence[Group]) -> Float[Tensor, "site d_model d_model"]:
    """Shrunken covariance of several classes, each about its own mean, from streamed moments.

    Raises:
        RequestError: a class has no spread.
    """
    spreads = [group.spread for group in groups if group.spread is not None]
    if len(spreads) < len(groups):
        raise RequestError(
            "these moments hold no covariance of just these prompt families: they keep one of the "
            "find part of the split with seed 0 and one of the other families, if extracted with "
            "--covariance"
        )
    n = torch.tensor(float(sum(group.n for group in groups)), dtype=torch.float64)
    covariance = torch.stack([spread.scatter for spread in spreads]).sum(dim=0) / n
    trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    squared = covariance.square().sum(dim=(1, 2))
    fourth = torch.stack([spread.fourth for spread in spreads]).sum(dim=0) / n
    width = covariance.shape[1]
    amount, target = shrinkage(n.expand_as(trace), trace, squared, fourth, width)
    shrunk = covariance.mul_((1 - amount)[:, None, None])
    shrunk.diagonal(dim1=1, dim2=2).add_((amount * target)[:, None])
    return shrunk


def divided(
    vector: Float[Tensor, "site d_model"], covariance: Float[Tensor, "site d_model d_model"]
) -> Float[Tensor, "site d_model"]:
    """covariance^-1 vector.

    Raises:
        DegenerateClassesError: a covariance has no inverse.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise DegenerateClassesError(NO_INVERSE)
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]
