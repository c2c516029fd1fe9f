"""Does a direction lie where activations vary at all?

Adding a vector can work through axes along which a model's activations hardly ever move, by waking
a pathway that lies dormant in normal use; the effect is then real and the interpretation is an
illusion (Makelov, Lange & Nanda 2023, arXiv:2311.17030). So: how much of the vector lies in the
principal components that hold most of the variance before finetuning?
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from persona_probe.statistics import Estimate

HELD = 0.9  # share of the variance that the components hold together
LIMIT = 0.5  # of ||v||^2: below it, the vector acts mostly through the complement
CONCENTRATED = 0.25  # of all axes: where more are needed, no complement is of low variance


@dataclass(frozen=True)
class VarianceShare:
    """How much of a direction lies in the span of the leading principal components.

    Attributes:
        share: of ||v||^2, with a jackknife interval over groups of families. It counts all that
            the finder put there, its noise included, which is spread over every axis.
        k: number of components, the fewest that hold `HELD` of the variance.
        isotropic: what a uniformly random direction has, k / d_model.
        matched: what random directions with the covariance of the activations have: mean and
            middle 95 % of draws.
    """

    share: Estimate
    k: int
    isotropic: float
    matched: Estimate

    @property
    def flag(self) -> bool:
        """Whether the direction acts mostly through a complement of low variance."""
        return self.share.value < LIMIT and self.isotropic < CONCENTRATED

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "share": self.share.to_json(),
            "k": self.k,
            "isotropic": self.isotropic,
            "matched": self.matched.to_json(),
            "flag": self.flag,
        }


def variance_shares(
    units: Float[Tensor, "site d_model"],
    left_out: Float[Tensor, "group site d_model"] | None,
    reference: Float[Tensor, "site example d_model"],
    draws: int,
    seed: int,
    n_units: int = 0,
) -> list[VarianceShare]:
    """Of each unit vector, the share in the leading components at its site.

    Args:
        units: the directions.
        left_out: directions found without one group of families each, for the intervals.
        reference: activations before finetuning.
        draws: of random directions for `matched`.
        seed: of these draws.
        n_units: families or pairs behind `left_out`, for the record.
    """
    centred = reference - reference.mean(dim=1, keepdim=True)
    variances, axes = _components(centred)
    cumulated = variances.cumsum(dim=-1) / variances.sum(dim=-1, keepdim=True)
    leading = cumulated < HELD
    counts = (leading.sum(dim=-1) + 1).clamp(max=variances.shape[-1]).tolist()
    noise = np.random.default_rng(seed).standard_normal((draws, centred.shape[1]))
    matched = torch.einsum("ge,sed->gsd", torch.from_numpy(noise), centred)
    rows = []
    for i, k in enumerate(counts):  # k differs from site to site
        basis = axes[i, :, :k]
        value = float(_share(units[i : i + 1], basis)[0])
        spread = np.empty(0) if left_out is None else _share(left_out[:, i], basis).numpy()
        rows.append(
            VarianceShare(
                share=_estimate(value, spread, reference.shape[1], n_units),
                k=k,
                isotropic=k / units.shape[-1],
                matched=Estimate.of_draws(_share(matched[:, i], basis).numpy()),
            )
        )
    return rows


def _components(
    centred: Float[Tensor, "site example d_model"],
) -> tuple[Float[Tensor, "site axis"], Float[Tensor, "site d_model axis"]]:
    """Variances in falling order and their axes, by the smaller of the two Gram matrices."""
    n, d = centred.shape[1:]
    if n >= d:
        variances, axes = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        return variances.flip(-1).clamp_min(0), axes.flip(-1)
    variances, mixtures = torch.linalg.eigh(centred @ centred.transpose(1, 2))
    variances, mixtures = variances.flip(-1).clamp_min(0), mixtures.flip(-1)
    axes = centred.transpose(1, 2) @ mixtures
    size = axes.norm(dim=1, keepdim=True)
    return variances, torch.where(size > 0, axes / size, 0.0)


def _share(
    vectors: Float[Tensor, "row d_model"], basis: Float[Tensor, "d_model axis"]
) -> Float[Tensor, " row"]:
    return (vectors @ basis).square().sum(dim=-1) / vectors.square().sum(dim=-1)


def _estimate(
    value: float, left_out: Float[np.ndarray, " group"], n: int, n_units: int
) -> Estimate:
    """Value -+ t standard errors; resampled vectors hold more noise, so no bootstrap would do."""
    groups = len(left_out)
    if groups < 2:
        reason = "no interval without several families that it was found on"
        return Estimate(value, np.nan, np.nan, n, n_units, reason=reason)
    error = np.sqrt((groups - 1) * left_out.var())
    low, high = value + error * stdtrit(groups - 1, [0.025, 0.975])
    return Estimate(value, float(max(low, 0.0)), float(min(high, 1.0)), n, n_units)
