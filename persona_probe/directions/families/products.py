"""Inner products of mean vectors as functions of family weights.

With S_f the sum of a vector over family f, the mean is sum_f w_f S_f / sum_f w_f n_f, and every
inner product of two means a quadratic form in w with the matrix G_fg = S_f . T_g: one matrix per
site serves every resample.

The squared length of a mean is too large by its sampling noise, and the inner product of two shifts
measured on the same prompts by the noise they share. Products of *different* families hold neither,
because families are drawn independently; leaving the diagonal of G out gives an unbiased value. It
can be negative: then there is no length, and what is divided by it is undefined.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.families.shift import Shift
from persona_probe.statistics import Estimate, cluster_jackknife
from persona_probe.statistics.bootstrap import Statistic, Weights

Gram = Float[np.ndarray, "site family family"]

NO_LENGTH = "a shift is not longer than its noise"


def gram(
    one: Float[Tensor, "site family column"], other: Float[Tensor, "site family column"]
) -> Gram:
    """Inner products of the family sums of two shifts, at each site."""
    return np.asarray(torch.einsum("sfd,sgd->sfg", one, other).numpy())


def product(weights: Weights, of: Gram) -> Float[np.ndarray, "draw site"]:
    """Inner product of the sums: w' G w."""
    return np.stack([((weights @ g) * weights).sum(axis=1) for g in of], axis=1)


def product_across(weights: Weights, of: Gram) -> Float[np.ndarray, "draw site"]:
    """The same over pairs of different families only; for weights of 0 and 1."""
    own = weights**2 @ np.diagonal(of, axis1=1, axis2=2).T
    return np.asarray(product(weights, of) - own)


def pairs_across(weights: Weights, sizes: Float[np.ndarray, " family"]) -> np.ndarray:
    """Number of pairs of examples of different families, [draw 1]."""
    return np.asarray((weights @ sizes) ** 2 - weights**2 @ sizes**2)[:, None]


def root(squared: np.ndarray) -> np.ndarray:
    """Square root; NaN where there is none or it would be 0."""
    return np.sqrt(np.where(squared > 0, squared, np.nan))


def cosine_with(
    along: Float[np.ndarray, "row site family"],
    squared: Gram,
    sizes: Float[np.ndarray, " family"],
) -> Statistic:
    """Cosine of fixed unit vectors and the mean shift, raw and free of the shift's own noise.

    Args:
        along: family sums of the shifts along each vector.
        squared: Gram matrix of the shift.
        sizes: examples per family.

    Returns:
        From weights to [draw, 2 * row * site]: all raw ones, then all debiased ones.
    """
    rows, sites = along.shape[:2]

    def statistic(weights: Weights) -> Float[np.ndarray, "draw out"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            sums = np.einsum("wf,rsf->wrs", weights, along)
            raw = sums / root(product(weights, squared))[:, None]
            mean = sums / (weights @ sizes)[:, None, None]
            length = root(product_across(weights, squared) / pairs_across(weights, sizes))
            debiased = mean / length[:, None]
        return np.stack([raw, debiased], axis=1).reshape(len(weights), 2 * rows * sites)

    return statistic


def cosine_between(mixed: Gram, one: Gram, other: Gram) -> Statistic:
    """Cosine of two mean shifts over the same families, raw and debiased: [draw, 2 * site]."""

    def statistic(weights: Weights) -> Float[np.ndarray, "draw out"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            both = [
                of(weights, mixed) / root(of(weights, one)) / root(of(weights, other))
                for of in (product, product_across)
            ]
        return np.hstack(both)

    return statistic


def jackknifed(statistic: Statistic, shift: Shift, reason: str, **options: Any) -> list[Estimate]:
    """Leave-one-family-out intervals; undefined with `reason` where there is no value."""
    found = cluster_jackknife(statistic, shift.n, len(shift.family_sizes), **options)
    return [e if e.defined else because(e, reason) for e in found]


def because(estimate: Estimate, reason: str) -> Estimate:
    """An undefined estimate with another reason."""
    return replace(estimate, reason=reason)
