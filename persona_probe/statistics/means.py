"""Intervals of means, of functions of means, and of ratios such as the effect reproduced."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from persona_probe.statistics.bootstrap import (
    Weights,
    cluster_bootstrap,
    cluster_index,
    cluster_sums,
)
from persona_probe.statistics.estimate import Estimate, Numbers

Columns: TypeAlias = Float[np.ndarray, "observation column"]
MeansFunction: TypeAlias = Callable[[Float[np.ndarray, "draw column"]], np.ndarray]  # -> [draw]


def mean_interval(values: Numbers, clusters: Sequence[str], **options: Any) -> Estimate:
    """Mean of `values` with a clustered interval.

    NaN entries (unscored replies) are left out and not counted. Values that are all equal give an
    interval of no width: see `share_interval`. The options are those of `cluster_bootstrap`.
    """
    columns = np.asarray(values, dtype=np.float64)[:, None]
    return function_of_means(columns, clusters, lambda means: means[:, 0], **options)


def function_of_means(
    columns: Columns, clusters: Sequence[str], function: MeansFunction, **options: Any
) -> Estimate:
    """Interval of a smooth function of column means, the columns resampled together (paired).

    Columns may be defined on different observations: J = Y - OR has a column of safe replies that
    is NaN on benign prompts and a column of refusals that is NaN on harmful ones, and is
    `lambda means: means[:, 0] - means[:, 1]`.
    """
    present = np.isfinite(columns)
    used = present.any(axis=1)
    n = int(used.sum())
    if not present.any(axis=0).all():
        return Estimate.undefined("the mean of nothing", n)
    index, n_clusters = cluster_index(
        [name for name, kept in zip(clusters, used, strict=True) if kept]
    )
    sums = cluster_sums(np.where(present, columns, 0.0)[used].T, index, n_clusters)
    counts = cluster_sums(present[used].T.astype(np.float64), index, n_clusters)

    def statistic(weights: Weights) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return function((weights @ sums.T) / (weights @ counts.T))

    return cluster_bootstrap(statistic, n, n_clusters, **options)[0]


def ratio_interval(
    numerator: Numbers,
    denominator: Numbers,
    clusters: Sequence[str],
    **options: Any,
) -> Estimate:
    """Ratio of means, e.g. effect reproduced: mean(Y_S - Y_H) / mean(Y_F - Y_H). Not clipped.

    Undefined unless the interval of the denominator excludes 0. An observation counts only when
    both of its entries are there.
    """
    columns = np.column_stack([numerator, denominator]).astype(np.float64)
    columns[np.isnan(columns).any(axis=1)] = np.nan
    return ratio_of_functions(
        columns, clusters, lambda means: means[:, 0], lambda means: means[:, 1], **options
    )


def ratio_of_functions(
    columns: Columns,
    clusters: Sequence[str],
    numerator: MeansFunction,
    denominator: MeansFunction,
    **options: Any,
) -> Estimate:
    """Ratio of two functions of column means; undefined unless the denominator excludes 0."""
    below = function_of_means(columns, clusters, denominator, **options)
    if not below.excludes(0.0):
        reason = below.reason or f"the denominator {below} does not exclude 0"
        return Estimate.undefined(reason, below.n, below.n_clusters)
    return function_of_means(
        columns, clusters, lambda means: numerator(means) / denominator(means), **options
    )
