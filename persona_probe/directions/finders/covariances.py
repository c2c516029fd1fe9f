"""Dividing by the covariances of many draws without writing any of them down.

A draw's shrunken covariance is X' diag(o) X - U' U + r I, where o holds the examples' weights, U
the class means and r the shrinkage. Dividing by it needs only what it does to a vector. So draws of
the same examples (the personas of one fold) share a Cholesky factor, that of their mean covariance,
or all draws of a site do where there are many; from there each is a few steps of conjugate
gradients away: two thin matrix products per step for all draws together, in place of a covariance
and a Cholesky factor per draw.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEPS = 100  # of conjugate gradients; a single draw needs one
REDUCTION = 1e-6  # of the error by conjugate gradients in float32
CORRECTIONS = 20  # in float64
PRECISION = 1e-5  # of the result, in the metric of the mean covariance; float32 reaches 1e-6


@dataclass(frozen=True, eq=False)
class Near:
    """Covariances near those of some draws: where conjugate gradients begin.

    Attributes:
        matrix: the covariances.
        group: the draws that each of them is near to; every draw occurs once.
    """

    matrix: Float[Tensor, "site group d d"]
    group: Int[Tensor, "group member"]

    def divided(self, v: Float[Tensor, "site draw d"]) -> Float[Tensor, "site draw d"]:
        """`matrix` being a Cholesky factor: by what it is a factor of."""
        grouped = v[:, self.group].transpose(2, 3).to(self.matrix)
        # cholesky_solve would copy the factor every time.
        half = torch.linalg.solve_triangular(self.matrix, grouped, upper=False)
        whole = torch.linalg.solve_triangular(self.matrix.mT, half, upper=True)
        found = whole.transpose(2, 3).flatten(1, 2)
        return torch.empty_like(v).index_copy_(1, self.group.flatten(), found.to(v))


@dataclass(frozen=True, eq=False)
class Covariances:
    """X' diag(weights) X - means' means + ridge I of every draw."""

    x: Float[Tensor, "site example d"]
    weights: Float[Tensor, "site draw example"]
    means: Float[Tensor, "site draw mean d"]
    ridge: Float[Tensor, "site draw"] | Float[Tensor, "site draw d"]

    def averages(
        self,
        groups: Int[Tensor, "group member"],
        product: Callable[[Float[Tensor, "site group example"]], Float[Tensor, "site group d d"]],
    ) -> Float[Tensor, "site group d d"]:
        """Mean covariance of each group of draws, given how to compute X' diag(weights) X."""
        found = product(self.weights[:, groups].mean(dim=2))
        means = self.means[:, groups].flatten(2, 3).to(found).flatten(0, 1)
        found.flatten(0, 1).baddbmm_(means.mT, means, alpha=-1 / groups.shape[1])
        ridge = self.ridge[:, groups].mean(dim=2, keepdim=True)
        found.diagonal(dim1=2, dim2=3).add_(ridge)
        return found

    def divided(
        self, vector: Float[Tensor, "site draw d"], near: Near
    ) -> Float[Tensor, "site draw d"] | None:
        """covariance^-1 vector, or `None` where a covariance has no inverse.

        Conjugate gradients in float32, corrected in float64. Coordinates are brought to equal
        variance first, so that a few very large ones do not take all the digits of float32.
        """
        variance = near.matrix.diagonal(dim1=2, dim2=3).mean(dim=1).double()
        if not (variance > 0).all():
            return None
        unit = variance.rsqrt()[:, None]
        factor = _cholesky(near.matrix, unit)
        if factor is None:
            return None
        return self._corrected(vector, unit, replace(near, matrix=factor))

    def _corrected(
        self,
        vector: Float[Tensor, "site draw d"],
        unit: Float[Tensor, "site 1 d"],
        near: Near,
    ) -> Float[Tensor, "site draw d"] | None:
        """In units of `unit`, of which `near` holds the Cholesky factors."""
        single = self._in_units(unit)
        solution, residual = torch.zeros_like(vector), vector * unit
        size = (residual * near.divided(residual)).sum(-1, keepdim=True)
        enough = PRECISION**2 * size
        for _ in range(CORRECTIONS):
            scale: Tensor = size.sqrt().clamp_min(1e-300)
            change = single._descended((residual / scale).float(), near)
            solution = solution + scale * change.double() * unit
            residual = (vector - self.times(solution)) * unit
            size = (residual * near.divided(residual)).sum(-1, keepdim=True)
            if (size <= enough).all():
                return solution
        return None

    def _in_units(self, unit: Float[Tensor, "site 1 d"]) -> "Covariances":
        """The same in float32, of coordinates that are multiplied by `unit`."""
        return Covariances(
            self.x.float().mul_(unit.float()),
            self.weights.float(),
            (self.means * unit[:, None]).float(),
            (self.ridge[..., None] * unit.square()).float(),
        )

    def _descended(
        self, vector: Float[Tensor, "site draw d"], near: Near
    ) -> Float[Tensor, "site draw d"]:
        """Conjugate gradients until the error is `REDUCTION` of what it was."""
        solution, residual = torch.zeros_like(vector), vector
        step = near.divided(residual)
        size = (residual * step).sum(-1, keepdim=True)
        enough = REDUCTION**2 * size
        for _ in range(STEPS):
            along = self.times(step)
            bent = (step * along).sum(-1, keepdim=True)
            length = torch.where((size > enough) & (bent > 0), size / bent, 0.0)
            solution = solution + length * step
            residual = residual - length * along
            image = near.divided(residual)
            before, size = size, (residual * image).sum(-1, keepdim=True)
            if not (size > enough).any():
                break
            step = image + step * torch.where(before > 0, size / before, 0.0)
        return solution

    def times(self, v: Float[Tensor, "site draw d"]) -> Float[Tensor, "site draw d"]:
        """The covariances, times a vector each."""
        out = (v @ self.x.transpose(1, 2)).mul_(self.weights) @ self.x
        out -= ((self.means @ v[..., None]) * self.means).sum(dim=2)
        ridge = self.ridge if self.ridge.ndim == 3 else self.ridge[..., None]
        return out.add_(ridge * v)


def _cholesky(
    matrix: Float[Tensor, "site group d d"], unit: Float[Tensor, "site 1 d"]
) -> Float[Tensor, "site group d d"] | None:
    """Factors in scaled coordinates, in float32 if that has the digits."""
    by = unit.to(matrix)
    scaled = (matrix * by[..., None]).mul_(by[:, :, None])
    for dtype in (torch.float32, torch.float64):
        found = torch.linalg.cholesky_ex(scaled.to(dtype))
        if not found.info.any():
            factor: Tensor = found.L
            return factor
    return None
