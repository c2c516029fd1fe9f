"""Is the shift one vector, or many? Singular values of the paired shifts of all examples.

Not centred: a finetune that adds one constant vector (the mechanism of arXiv:2507.08218) has all
of its energy in the first singular direction.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.families.products import (
    gram,
    jackknifed,
    pairs_across,
    product_across,
)
from persona_probe.directions.families.shift import Shift
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate
from persona_probe.statistics.bootstrap import Weights

NO_SHIFT = "nothing moved"


@dataclass(frozen=True)
class ShiftSpectrum:
    """How the energy of a shift (its summed squared lengths) spreads over directions.

    Attributes:
        name: of the finetune.
        site: where.
        singular_values: of the shifts [example, d_model] over sqrt(n), largest first, residual
            units: their squares add up to the mean squared length of a shift.
        top_share: share of the energy in the first direction.
        top_k_share: share in the first k.
        k: directions counted in `top_k_share`.
        effective_rank: exp of the entropy of the energy shares.
        constant_share: share of the energy that is the same for all examples, ||mean||^2 without
            its sampling noise over the mean squared length; negative when there is only noise.
        noise_top_share: what unrelated Gaussian noise of this size has as `top_share`.
        noise_rank: what it has as `effective_rank`.
    """

    name: str
    site: Site
    singular_values: tuple[float, ...]
    top_share: Estimate
    top_k_share: Estimate
    k: int
    effective_rank: Estimate
    constant_share: Estimate
    noise_top_share: float
    noise_rank: float


def spectrum(shift: Shift, k: int = 4) -> list[ShiftSpectrum]:
    """The spectrum at every site, with intervals over families.

    Intervals come from the infinitesimal jackknife: the singular directions are held fixed when a
    family is left out, which changes shares in second order only.

    Args:
        shift: of one finetune.
        k: directions counted in `top_k_share`, all if there are fewer.
    """
    values, directions = singular(shift.delta)
    energy = shift.summed((shift.delta @ directions).square()).numpy()
    k = min(k, values.shape[1])
    squared, sizes = gram(shift.family_sums, shift.family_sums), shift.family_sizes

    def statistic(weights: Weights) -> Float[np.ndarray, "draw out"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            by_direction = np.einsum("wf,sfk->wsk", weights, energy)
            total = by_direction.sum(axis=2)
            shares = by_direction / total[..., None]
            constant = product_across(weights, squared) / pairs_across(weights, sizes)
            constant /= total / (weights @ sizes)[:, None]
            logs = np.log(np.where(shares > 0, shares, 1.0))
            rank = np.exp(-(shares * logs).sum(axis=2))
        return np.hstack([shares[..., 0], shares[..., :k].sum(axis=2), rank, constant])

    found = iter(jackknifed(statistic, shift, NO_SHIFT))
    top, top_k, rank, constant = ([next(found) for _ in shift.sites] for _ in range(4))
    n, d = shift.delta.shape[1:]
    return [
        ShiftSpectrum(
            name=shift.name,
            site=site,
            singular_values=tuple((values[i] / math.sqrt(n)).tolist()),
            top_share=top[i],
            top_k_share=top_k[i],
            k=k,
            effective_rank=rank[i],
            constant_share=constant[i],
            noise_top_share=noise_top_share(n, d),
            noise_rank=noise_rank(n, d),
        )
        for i, site in enumerate(shift.sites)
    ]


def singular(
    x: Float[Tensor, "site example d_model"],
) -> tuple[Float[Tensor, "site rank"], Float[Tensor, "site d_model rank"]]:
    """Singular values, largest first, and right singular vectors, at every site."""
    n, d = x.shape[1:]
    if n < d:
        _, values, rows = torch.linalg.svd(x, full_matrices=False)
        return values, rows.transpose(1, 2)
    # An eigenproblem of d x d is several times cheaper than the tall singular one.
    squares, columns = torch.linalg.eigh(x.transpose(1, 2) @ x)
    return squares.clamp_min(0).sqrt().flip(-1), columns.flip(-1)


def noise_top_share(n: int, d: int) -> float:
    """First energy share of an n x d matrix of independent normals: (sqrt n + sqrt d)^2 / (n d).

    The edge of Marchenko & Pastur's law, at most 1.
    """
    return min(1.0, (math.sqrt(n) + math.sqrt(d)) ** 2 / (n * d))


def noise_rank(n: int, d: int) -> float:
    """Effective rank of the same: exp(log m - m / (2 M)), m the smaller and M the larger of both.

    Page 1993, arXiv:gr-qc/9305007.
    """
    small, large = min(n, d), max(n, d)
    return small * math.exp(-small / (2 * large))
