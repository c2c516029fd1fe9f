"""How alike two models arrange the same examples: debiased linear CKA.

Centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414) compares K = X X' with L = Y Y'
and ignores rotations and one common scale. With fewer examples than dimensions its plain form is
far from 0 for unrelated data, so the unbiased HSIC of Song et al. 2012 is used (zero diagonals):

    HSIC_u = [tr(K L) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)] / (n (n-3))
    CKA = HSIC_u(K, L) / sqrt(HSIC_u(K, K) HSIC_u(L, L))

It is 0 in expectation for unrelated data, so single values may be negative. Everything is computed
from features, at n d^2 per site: no kernel of more than d^2 entries is ever held.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, cluster_index, cluster_jackknife
from persona_probe.statistics.bootstrap import Weights

Features = Float[Tensor, "site example column"]
MIN_EXAMPLES = 4


@dataclass(frozen=True)
class Similarity:
    """Debiased linear CKA at one site.

    Attributes:
        site: where.
        cka: 1 for a rotation, 0 in expectation for unrelated data; interval over families.
        chance: the same with the examples of one side permuted: mean and middle 95 % of draws.
    """

    site: Site
    cka: Estimate
    chance: Estimate


def similarity(
    x: Float[Tensor, "site example d_model"],
    y: Float[Tensor, "site example width"],
    families: Sequence[str],
    sites: Sequence[Site],
    *,
    draws: int = 20,
    seed: int = 0,
) -> list[Similarity]:
    """CKA of two sets of features of the same examples, at each site.

    Args:
        x: activations or shifts.
        y: others of the same examples; their width may differ.
        families: left out one at a time for the interval.
        sites: of both.
        draws: permutations of the examples.
        seed: of the permutations.
    """
    n = x.shape[1]
    if n < MIN_EXAMPLES:
        none = Estimate.undefined(f"debiased CKA needs {MIN_EXAMPLES} examples, got {n}", n)
        return [Similarity(site, none, none) for site in sites]
    x, y = _prepared(x), _prepared(y)
    index, n_families = cluster_index(families)
    own = [_hsic_left_out(one, one, index) for one in (x, y)]
    scale = np.sqrt(np.prod([np.where(h > 0, h, np.nan) for h in own], axis=0))
    table = _hsic_left_out(x, y, index) / scale

    def statistic(weights: Weights) -> np.ndarray:
        """The jackknife asks for everything, or for all but one family."""
        left_out = (weights == 0).any(axis=1)
        return np.asarray(table[np.where(left_out, 1 + weights.argmin(axis=1), 0)])

    rng = np.random.default_rng(seed)
    permuted = [
        hsic(x, y[:, torch.from_numpy(rng.permutation(n))]).numpy() / scale[0] for _ in range(draws)
    ]
    found = cluster_jackknife(statistic, n, n_families)
    reason = "the examples do not vary beyond chance"
    return [
        Similarity(
            site,
            found[i] if found[i].defined else Estimate.undefined(reason, n, n_families),
            Estimate.of_draws([draw[i] for draw in permuted]),
        )
        for i, site in enumerate(sites)
    ]


def cka(x: Features, y: Float[Tensor, "site example width"]) -> Float[Tensor, " site"]:
    """Debiased linear CKA; NaN where one side does not vary beyond chance.

    The features should have been centred, which changes nothing but rounding.
    """
    own = hsic(x, x) * hsic(y, y)
    return hsic(x, y) / torch.where(own > 0, own, torch.nan).sqrt()


def hsic(x: Features, y: Float[Tensor, "site example width"]) -> Float[Tensor, " site"]:
    """Unbiased HSIC of linear kernels."""
    n = x.shape[1]
    size_x, size_y = _squares(x), _squares(y)
    trace = _overlap(x, y) - (size_x * size_y).sum(dim=1)
    rows_k, rows_l = _row_sums(x, size_x), _row_sums(y, size_y)
    return _unbiased(trace, rows_k.sum(dim=1), rows_l.sum(dim=1), (rows_k * rows_l).sum(dim=1), n)


def _hsic_left_out(
    x: Features, y: Float[Tensor, "site example width"], index: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "draw site"]:
    """HSIC of all examples, then without each family; NaN where fewer than four are left."""
    n, size_x, size_y = x.shape[1], _squares(x), _squares(y)
    mixed, diagonal = x.transpose(1, 2) @ y, size_x * size_y
    trace = mixed.square().sum(dim=(1, 2)) - diagonal.sum(dim=1)
    with_all = ((x @ mixed) * y).sum(dim=2) - diagonal
    rows_k, rows_l = _row_sums(x, size_x), _row_sums(y, size_y)
    of_family = torch.from_numpy(index == np.arange(index.max() + 1)[:, None])
    # Inner products of every example with the sum of every family.
    to_k, to_l = (z @ (of_family.double() @ z).transpose(1, 2) for z in (x, y))
    found = [hsic(x, y)]
    for family, mine in enumerate(of_family):
        rest, left = ~mine, n - int(mine.sum())
        if left < MIN_EXAMPLES:
            found.append(torch.full((len(x),), torch.nan, dtype=torch.float64))
            continue
        # tr(KL) loses the products within the family once and those with the others twice.
        within = _overlap(x[:, mine], y[:, mine]) - diagonal[:, mine].sum(dim=1)
        touching = with_all[:, mine].sum(dim=1)
        k_rest = rows_k[:, rest] - to_k[:, rest, family]
        l_rest = rows_l[:, rest] - to_l[:, rest, family]
        found.append(
            _unbiased(
                trace - 2 * touching + within,
                k_rest.sum(dim=1),
                l_rest.sum(dim=1),
                (k_rest * l_rest).sum(dim=1),
                left,
            )
        )
    return np.asarray(torch.stack(found).numpy())


def _unbiased(
    trace: Tensor, total_k: Tensor, total_l: Tensor, rows: Tensor, n: int
) -> Float[Tensor, " site"]:
    """The formula above from tr(KL), 1'K1, 1'L1 and 1'KL1 of kernels without diagonals."""
    corrected = trace + total_k * total_l / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)
    return corrected / (n * (n - 3))


def _prepared(x: Features) -> Features:
    """Centred, so that a large mean does not drown what varies; of mean square 1 per site."""
    centred = x.double() - x.double().mean(dim=1, keepdim=True)
    size = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return centred / torch.where(size > 0, size, 1.0)


def _overlap(x: Features, y: Float[Tensor, "site example width"]) -> Float[Tensor, " site"]:
    """tr(K L), diagonals included, through whichever of kernels and features is smaller."""
    if x.shape[1] ** 2 < x.shape[2] * y.shape[2]:
        return ((x @ x.transpose(1, 2)) * (y @ y.transpose(1, 2))).sum(dim=(1, 2))
    return (x.transpose(1, 2) @ y).square().sum(dim=(1, 2))


def _squares(x: Features) -> Float[Tensor, "site example"]:
    return x.square().sum(dim=2)


def _row_sums(x: Features, squares: Float[Tensor, "site example"]) -> Float[Tensor, "site example"]:
    """Row sums of the kernel without its diagonal."""
    return (x @ x.sum(dim=1)[..., None])[..., 0] - squares
