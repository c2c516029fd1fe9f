"""The first principal component of the differences within pairs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from persona_probe.directions.classes import require_both_classes
from persona_probe.directions.design import Design
from persona_probe.directions.finder import Finder
from persona_probe.errors import DegenerateClassesError, PersonaProbeError, RequestError

STEPS = 32  # of the Lanczos recursion before it starts again from its best vector
LOOK = 6  # steps between two looks at how far it has come
STARTS = 50
RESIDUAL = 1e-7  # of the eigenvector equation, relative to the eigenvalue


@dataclass(frozen=True)
class PrincipalComponent(Finder):
    """The axis along which the two members of a pair differ most (Zou et al. 2023).

    A pair is the positive and the negative examples with the same id (the same question under two
    characters), or, where an id occurs in one class only, those of the same prompt family; see
    `Design`. With d_g the difference of the two means within pair g, and a and b the numbers of
    examples behind them, the result is the first eigenvector of

        sum_g  2 a b / (a + b)  d_g d_g'

    Equivalently, the examples are centred on their pair's midpoint and the first principal
    component is taken. The differences themselves are *not* centred on their mean: that would
    remove the very direction that all pairs share. A pair without examples of both classes counts
    nothing.

    Labels enter through the pairing alone: exchanging the two members of a pair changes nothing but
    the sign that `find_directions` fixes. So it finds whatever makes pairs differ most, which need
    not be what makes the classes differ: look at its cosine to the difference of means, which
    `persona-probe find` prints, and do not expect relabelling within pairs to give a null.
    https://arxiv.org/abs/2310.01405
    """

    name: ClassVar[str] = "principal_component"

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,
    ) -> Float[Tensor, "draw site d_model"]:
        """All sites and draws take each step of one Lanczos recursion together.

        Raises:
            RequestError: no design says which examples are pairs.
            DegenerateClassesError: a draw has no pair with both classes, or no pair differs.
            PersonaProbeError: the two largest eigenvalues are too close to be told apart.
        """
        if design is None:
            raise RequestError(
                f"{self.name} has to know which examples are pairs: pass a Design, or groups"
            )
        require_both_classes(labels, weights)
        sign, multiplicity = _pairing(labels, weights.double(), design.pairs)
        centred = x.double() - x.double().mean(dim=1, keepdim=True)
        differences = _Differences(centred, sign, multiplicity, design.pairs)
        return _first_eigenvector(differences).transpose(0, 1)


@dataclass(frozen=True, eq=False)
class _Differences:
    """The matrix of the eigenvalue problem, as what it does to a vector."""

    x: Float[Tensor, "site example d_model"]
    sign: Float[Tensor, "draw example"]
    multiplicity: Float[Tensor, "draw pair"]
    pair: Int[Tensor, " example"]

    def mean(self) -> Float[Tensor, "site draw d_model"]:
        """Mean difference of the pairs."""
        return (self.sign * self.multiplicity[:, self.pair]) @ self.x

    def __call__(self, v: Float[Tensor, "site draw d_model"]) -> Float[Tensor, "site draw d_model"]:
        along = (v @ self.x.transpose(1, 2)).mul_(self.sign)
        per_pair = along.new_zeros(*along.shape[:2], self.multiplicity.shape[1])
        per_pair.index_add_(2, self.pair, along).mul_(self.multiplicity)
        return (per_pair[..., self.pair] * self.sign) @ self.x


def _pairing(
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    pair: Int[Tensor, " example"],
) -> tuple[Float[Tensor, "draw example"], Float[Tensor, "draw pair"]]:
    """What each example adds to its pair's difference, and how often that difference counts."""
    n_pairs = int(pair.max()) + 1
    sizes = []
    for of in (labels, ~labels):
        total = weights.new_zeros(len(weights), n_pairs)
        sizes.append(total.index_add_(1, pair, weights * of))
    both = (sizes[0] > 0) & (sizes[1] > 0)
    if not both.any(dim=1).all():
        raise DegenerateClassesError(
            "no id and no prompt family has examples of both classes, so there are no pairs to "
            "take a principal component of; use mean_difference"
        )
    a, b = (torch.where(both, size, 1.0) for size in sizes)
    multiplicity = torch.where(both, 2 * a * b / (a + b), 0.0)
    share = torch.where(labels, 1 / a[:, pair], -1 / b[:, pair])
    return weights * share, multiplicity


def _first_eigenvector(matrix: _Differences) -> Float[Tensor, "site draw d_model"]:
    """By Lanczos recursions with full reorthogonalisation, turned towards the mean difference.

    The start mixes the mean difference, which is usually near, with noise: an exact eigenvector
    that is not the first would otherwise pass for it.
    """
    mean = matrix.mean()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(mean.shape[2], generator=generator, dtype=torch.float64)
    vector = normalize(normalize(mean, dim=-1) + normalize(noise, dim=0), dim=-1)
    for _ in range(STARTS):
        vector, converged = _krylov(matrix, vector, min(STEPS, mean.shape[2]))
        if converged:
            against = (vector * mean).sum(-1, keepdim=True) < 0
            return torch.where(against, -vector, vector)
    raise PersonaProbeError(
        "the differences of pairs vary equally along two axes, so there is no first principal "
        "component; use mean_difference"
    )


def _krylov(
    matrix: _Differences, start: Float[Tensor, "site draw d_model"], steps: int
) -> tuple[Float[Tensor, "site draw d_model"], bool]:
    """The best vector that so many steps find, and whether it solves the equation.

    Raises:
        DegenerateClassesError: the matrix is zero.
    """
    basis = start.new_zeros(*start.shape[:2], steps, start.shape[2])
    inner = start.new_zeros(*start.shape[:2], steps, steps)
    vector = start
    for k in range(steps):
        basis[..., k, :] = vector
        image = matrix(vector)
        known, seen = basis[..., : k + 1, :], inner[..., : k + 1, : k + 1]
        seen[..., k, k] = (vector * image).sum(-1)
        for _ in range(2):  # once leaves rounding behind
            image = image - ((known @ image[..., None]).transpose(-1, -2) @ known)[..., 0, :]
        length = image.norm(dim=-1)
        # Nothing is left where the basis spans everything that the matrix reaches.
        exhausted = length <= 1e-13 * seen.diagonal(dim1=-2, dim2=-1).abs().amax(-1)
        length = torch.where(exhausted, 0.0, length)
        if (k + 1) % LOOK == 0 or k + 1 == steps:
            values, vectors = torch.linalg.eigh(seen)
            if (values[..., -1] <= 0).any():
                raise DegenerateClassesError(
                    "the two members of every pair are equal: no direction"
                )
            residual = length * vectors[..., -1, -1].abs()
            converged = bool((residual <= RESIDUAL * values[..., -1]).all())
            if converged or k + 1 == steps:
                break
        vector = torch.where(exhausted[..., None], 0.0, image / length.clamp_min(1e-300)[..., None])
        inner[..., k, k + 1] = inner[..., k + 1, k] = length
    best = (vectors[..., None, :, -1] @ known)[..., 0, :]
    return normalize(best, dim=-1), converged
