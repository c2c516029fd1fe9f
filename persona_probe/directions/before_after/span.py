"""How much of the shift was there before: its share in the span of older directions (R2_pre)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.directions.families.products import (
    NO_LENGTH,
    gram,
    jackknifed,
    product_across,
    root,
)
from persona_probe.directions.families.shift import Shift
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, permutation_p
from persona_probe.statistics.bootstrap import Weights

RELATIVE_RANK = 1e-6


@dataclass(frozen=True)
class PreExisting:
    """Share of a mean shift d in the span V of directions found before: ||P_V d||^2 / ||d||^2.

    Attributes:
        name: of the finetune.
        site: where.
        dimensions: of V; fewer than the directions where these depend on each other.
        share: as it is. The noise of d lies mostly outside of V, so this is too low.
        debiased: without the sampling noise of d, with its interval over families; not clipped.
        chance: `share` for as many random directions with the covariance of the activations before
            finetuning: mean and middle 95 % of draws.
        isotropic: mean of the same for isotropic directions, dimensions / d_model.
        p: share of the covariance-matched draws (and the true one) that hold as much of d.
        n: examples.
    """

    name: str
    site: Site
    dimensions: int
    share: float
    debiased: Estimate
    chance: Estimate
    isotropic: float
    p: float
    n: int


def pre_existing(
    shift: Shift,
    before: Float[Tensor, "site example d_model"],
    directions: Sequence[Sequence[Direction]],
    *,
    draws: int = 200,
    seed: int = 0,
) -> list[PreExisting]:
    """R2_pre at every site of the shift.

    Args:
        shift: of one finetune.
        before: activations before finetuning, for the covariance of random directions.
        directions: those that span V, at each site of the shift.
        draws: random sets of directions.
        seed: of the draws.

    Raises:
        RequestError: a site has no direction to span anything.
    """
    if not all(directions):
        raise RequestError("no directions that existed before finetuning were given at some site")
    bases = [basis_of([d.unit.double() for d in several]) for several in directions]
    family_sums = shift.family_sums
    whole = gram(family_sums, family_sums)
    inside = np.stack(
        [
            gram((family_sums[i] @ basis)[None], (family_sums[i] @ basis)[None])[0]
            for i, basis in enumerate(bases)
        ]
    )

    def statistic(weights: Weights) -> Float[np.ndarray, "draw site"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            length = root(product_across(weights, whole)) ** 2
            return np.asarray(product_across(weights, inside) / length)

    debiased = jackknifed(statistic, shift, NO_LENGTH)
    rng, d_model, rows = np.random.default_rng(seed), shift.delta.shape[2], []
    for i, site in enumerate(shift.sites):
        mean, dimensions = shift.mean[i], bases[i].shape[1]
        share = _share(mean, bases[i][None])
        random = _share(mean, random_spans(before[i], dimensions, draws, rng))
        rows.append(
            PreExisting(
                name=shift.name,
                site=site,
                dimensions=dimensions,
                share=float(share[0]),
                debiased=debiased[i],
                chance=Estimate.of_draws(random.numpy()),
                isotropic=dimensions / d_model,
                p=permutation_p(float(share[0]), random.numpy()),
                n=shift.n,
            )
        )
    return rows


def basis_of(vectors: Sequence[Float[Tensor, " d_model"]]) -> Float[Tensor, "d_model dimension"]:
    """Orthonormal basis of a span; vectors that depend on each other span fewer dimensions."""
    axes, sizes, _ = torch.linalg.svd(torch.stack(list(vectors), dim=1), full_matrices=False)
    basis: Tensor = axes[:, sizes > RELATIVE_RANK * sizes[0]]
    return basis


def random_spans(
    x: Float[Tensor, "example d_model"], dimensions: int, draws: int, rng: np.random.Generator
) -> Float[Tensor, "draw d_model dimension"]:
    """Bases of the spans of random directions with the covariance of `x`."""
    n, d_model = x.shape
    centred = (x - x.mean(dim=0)).double() / math.sqrt(n)
    mixture = torch.from_numpy(rng.standard_normal((draws, dimensions, n))) @ centred
    if not 0 < dimensions < min(n, d_model):
        return torch.full((draws, d_model, dimensions), torch.nan, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(mixture.transpose(1, 2)).Q
    return basis


def _share(
    mean: Float[Tensor, " d_model"], bases: Float[Tensor, "draw d_model dimension"]
) -> Float[Tensor, " draw"]:
    inside = torch.einsum("d,gdk->gk", mean, bases).square().sum(dim=1)
    return inside / mean.square().sum()
