"""Both classes of many draws, and what shrinking and dividing by their covariances needs of them.

Folds of one set overlap in most of their examples, and the labels of several personas cut it into
the same few blocks. Nothing is computed once per draw that can be computed once per block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.directions.design import numbered
from persona_probe.directions.finders.covariances import Covariances, Near
from persona_probe.directions.finders.shrinkage import NO_INVERSE
from persona_probe.errors import DegenerateClassesError

BUDGET = 2**25  # numbers in the largest tensor at a time: 256 MiB
SITES = 2**20  # numbers of x at a time: beyond that, one site fills the processor's caches
SINGLE = 2**26  # products of numbers in a matrix product, from which on float32 does it
FACTORS = 16  # Cholesky factors per site at most


@dataclass(frozen=True, eq=False)
class Spread:
    """What shrinking needs to know of covariances S.

    Attributes:
        n: total weight of the examples.
        trace: of S.
        squared: sum of the squared entries of S.
        fourth: mean fourth power of the examples' distances from the mean of their class.
    """

    n: Float[Tensor, "site part"]
    trace: Float[Tensor, "site part"]
    squared: Float[Tensor, "site part"]
    fourth: Float[Tensor, "site part"]


@dataclass(frozen=True, eq=False)
class Classes:
    """Both classes of many draws at some sites.

    Attributes:
        draws: which draws these are.
        sites: which sites these are.
        x: the examples, centred; in coordinates within their own span where there are fewer
            examples than dimensions.
        basis: orthonormal columns that the coordinates belong to; `None` if x is as it came.
        width: dimensions of the residual stream.
        weights: of the positive examples of every draw, then of the negative ones.
        apart: whether each class has a covariance of its own, or both have one together.
    """

    draws: slice
    sites: slice
    x: Float[Tensor, "site example d"]
    basis: Float[Tensor, "site d_model d"] | None
    width: int
    weights: Float[Tensor, "2 draw example"]
    apart: bool

    @cached_property
    def n(self) -> Float[Tensor, "2 draw"]:
        """Total weight of each class."""
        return self.weights.sum(dim=2)

    @cached_property
    def mean(self) -> Float[Tensor, "2 site draw d"]:
        """Of each class."""
        both = self._share.flatten(0, 1) @ self.x
        return torch.stack(both.chunk(2, dim=1))

    @cached_property
    def spread(self) -> Spread:
        """Of the classes apart (the positive ones of all draws first), or of both together.

        S is about the mean of each class, X' diag(share) X less the means' outer products.
        """
        lengths = torch.linalg.vector_norm(self.x, dim=-1).square()
        norms = self.mean.square().sum(-1)
        # What the examples have along the means gives both the distances and the outer products.
        along = torch.stack([mean @ self.x.transpose(1, 2) for mean in self.mean])
        far = (lengths[:, None] - 2 * along).add_(norms[..., None]).square_()
        fourth = (far * self._share[:, None]).sum(-1)
        if self.apart:
            share = self._share.flatten(0, 1)
            crossed = (along.square_() * self._share[:, None]).sum(-1)
            crossed, norms, fourth = (torch.cat(list(of), 1) for of in (crossed, norms, fourth))
            squared, n = norms.square() - 2 * crossed, self.n.flatten()
        else:
            n = self.n.sum(dim=0)
            prior = (self.n / n)[:, None]
            share = self.weights.sum(dim=0) / n[:, None]
            crossed = (prior * (along.square_() * share).sum(-1)).sum(dim=0)
            product = (self.mean[0] * self.mean[1]).sum(-1)
            squared = (prior * norms).square().sum(0) + 2 * prior[0] * prior[1] * product.square()
            squared -= 2 * crossed
            norms, fourth = (prior * norms).sum(0), (prior * fourth).sum(0)
        squared += self._blocks.squared(share)
        trace = lengths @ share.T - norms
        return Spread(n.expand_as(trace), trace.clamp_min(0), squared.clamp_min(0), fourth)

    @cached_property
    def _share(self) -> Float[Tensor, "2 draw example"]:
        return self.weights / self.n[..., None]

    @cached_property
    def _blocks(self) -> "_Blocks":
        parts = self.weights.flatten(0, 1) if self.apart else self.weights.sum(dim=0)
        return _Blocks.of(self.x, parts)

    def divided(
        self, keep: Float[Tensor, "2 site draw"], ridge: Float[Tensor, "site draw"]
    ) -> Float[Tensor, "draw site d_model"]:
        """C^-1 (difference of means), C = sum of keep * (S of the class) + ridge * I.

        Raises:
            DegenerateClassesError: a covariance has no inverse.
        """
        means = (self.mean * keep[..., None].sqrt()).permute(1, 2, 0, 3)
        weights = sum(of[None] * by[..., None] for of, by in zip(self._share, keep, strict=True))
        of_draws = Covariances(self.x, weights, means, ridge)
        group = _alike(self.weights.sum(dim=0))
        near = of_draws.averages(group, self._blocks.product)
        found = of_draws.divided(self.mean[0] - self.mean[1], Near(near, group))
        if found is None:
            raise DegenerateClassesError(NO_INVERSE)
        if self.basis is not None:
            found = found @ self.basis.transpose(1, 2)
        return found.transpose(0, 1)


def classes(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    apart: bool,
) -> Iterator[Classes]:
    """Both classes of all draws, as many draws and sites at a time as memory allows.

    Args:
        x: activations of every site.
        labels: true for each draw's positive class.
        weights: how often each example counts in each draw.
        apart: whether each class has a covariance of its own, or both have one together.
    """
    n, width = x.shape[1:]
    draws = max(1, min(len(labels), BUDGET // (4 * n)))
    sites = max(1, SITES // (n * max(2 * draws, width)))
    for i in range(0, len(x), sites):
        at = slice(i, i + sites)
        centred = x[at].double()
        centred = centred - centred.mean(dim=1, keepdim=True)
        basis = None
        if n < width:
            basis, triangle = torch.linalg.qr(centred.transpose(1, 2))
            centred = triangle.transpose(1, 2).contiguous()
        for j in range(0, len(labels), draws):
            of = slice(j, j + draws)
            counts = weights[of].double()
            both = torch.stack([counts * labels[of], counts * ~labels[of]])
            yield Classes(of, at, centred, basis, width, both, apart)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Products x' x of the examples that have the same weights in all draws.

    Five folds and four personas cut a set into twenty such blocks, whose products cost as much as
    one product of everything. Relabellings leave no two examples alike; then there are none.
    """

    x: Float[Tensor, "site example d"]
    members: Float[Tensor, "block example"] | None
    products: Float[Tensor, "site block d*d"] | None

    @classmethod
    def of(
        cls, x: Float[Tensor, "site example d"], parts: Float[Tensor, "part example"]
    ) -> "_Blocks":
        sites, n, d = x.shape
        if n * d * d > SINGLE:
            x = x.float()
        block = _numbers(parts.T)
        count = int(block.max()) + 1
        if count > n // 4 or count * d * d > BUDGET:
            return cls(x, None, None)
        products = x.new_empty(sites, count, d, d)
        for k in range(count):
            members = x[:, block == k]
            torch.bmm(members.transpose(1, 2), members, out=products[:, k])
        members = (block == torch.arange(count)[:, None]).double()
        return cls(x, members / members.sum(dim=1, keepdim=True), products.flatten(2))

    def squared(self, share: Float[Tensor, "part example"]) -> Float[Tensor, "site part"]:
        """Sum of the squared entries of x' diag(share) x."""
        if self.members is None or self.products is None:
            return _squared_by_kernel(self.x, share.to(self.x)).double()
        of_block = share @ self.members.T
        inner = (self.products @ self.products.transpose(1, 2)).double()
        return ((of_block @ inner) * of_block).sum(-1)

    def product(
        self, weights: Float[Tensor, "site group example"]
    ) -> Float[Tensor, "site group d d"]:
        """X' diag(weights) X, for weights that are equal within blocks."""
        if self.members is None or self.products is None:
            weighted = [self.x * of[..., None] for of in weights.to(self.x).unbind(1)]
            found = torch.stack([of.transpose(1, 2) @ self.x for of in weighted], dim=1)
        else:
            d = self.x.shape[2]
            found = (weights @ self.members.T).to(self.products) @ self.products
            found = found.reshape(*found.shape[:2], d, d)
        return found


def _squared_by_kernel(
    x: Float[Tensor, "site example d"], share: Float[Tensor, "part example"]
) -> Float[Tensor, "site part"]:
    """The same from the inner products of examples: sum_ij s_i s_j (x_i · x_j)^2."""
    found = x.new_zeros(len(x), len(share))
    rows = max(1, BUDGET // (x.shape[0] * x.shape[1]))
    for i in range(0, x.shape[1], rows):
        kernel = (x[:, i : i + rows] @ x.transpose(1, 2)).square_()
        found += ((share @ kernel.transpose(1, 2)) * share[:, i : i + rows]).sum(-1)
    return found


def _alike(counts: Float[Tensor, "draw example"]) -> Int[Tensor, "group member"]:
    """Draws of the same examples, in groups of equal size; one group where there are too many."""
    group = _numbers(counts)
    sizes = torch.bincount(group)
    if len(sizes) <= FACTORS and (sizes == sizes[0]).all():
        return group.argsort(stable=True).reshape(len(sizes), -1)
    return torch.arange(len(counts))[None]


def _numbers(rows: Float[Tensor, "row column"]) -> Int[Tensor, " row"]:
    """Numbers that are the same for equal rows."""
    return numbered([row.tobytes() for row in rows.contiguous().numpy()])
