"""Intervals of means, of functions of means, and of ratios such as the effect reproduced."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.statistics.bootstrap import (
    Weights,
    cluster_bootstrap,
    cluster_index,
    cluster_sums,
)
from persona_probe.statistics.estimate import Estimate, Numbers
from persona_probe.statistics.shares import wilson_interval

Columns: TypeAlias = Float[np.ndarray, "observation column"]
ROUNDING = 1e-12  # of an interval that has no width but for the order of a sum
MeansFunction: TypeAlias = Callable[[Float[np.ndarray, "draw column"]], np.ndarray]  # -> [draw]


def mean_interval(values: Numbers, clusters: Sequence[str], **options: Any) -> Estimate:
    """Mean of `values` with a clustered interval.

    NaN entries (unscored replies) are left out and not counted. Values that are all equal give an
    interval of no width: see `share_interval`. The options are those of `function_of_means`.
    """
    columns = np.asarray(values, dtype=np.float64)[:, None]
    return function_of_means(columns, clusters, lambda means: means[:, 0], **options)


def share_interval(values: Numbers, clusters: Sequence[str], **options: Any) -> Estimate:
    """`mean_interval` of zeros and ones; Wilson's over clusters where all of them are equal.

    No resample of zeros holds a one, yet 0 of 20 does not show that the share is exactly 0. The
    clusters are counted there, not the observations, which may be alike within one.
    """
    return mean_interval(values, clusters, shares=True, **options)


def function_of_means(
    columns: Columns,
    clusters: Sequence[str],
    function: MeansFunction,
    *,
    shares: bool = False,
    **options: Any,
) -> Estimate:
    """Interval of a smooth function of column means, the columns resampled together (paired).

    Columns may be defined on different observations: J = Y - OR has a column of safe replies that
    is NaN on benign prompts and a column of refusals that is NaN on harmful ones, and is
    `lambda means: means[:, 0] - means[:, 1]`.

    Args:
        columns: NaN where a column does not apply.
        clusters: of the observations.
        function: of the means, vectorised over draws.
        shares: the columns hold zeros and ones. Where no resample can differ (a column of zeros,
            or two columns that agree everywhere), the interval then says what so many clusters
            without a counter-example leave open, instead of having no width.
        options: of `cluster_bootstrap`.
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

    found = cluster_bootstrap(statistic, n, n_clusters, **options)[0]
    if shares and found.high - found.low < ROUNDING:
        return _left_open(found, columns[used], counts > 0, function)
    return found


def _left_open(
    found: Estimate,
    columns: Columns,
    asked: Bool[np.ndarray, "column cluster"],
    function: MeansFunction,
) -> Estimate:
    """The interval from what may be true of the shares in which no cluster differs.

    A share that is 0 or 1 in all of k clusters, or that two columns have in common there, may be
    off by as much as Wilson's interval for 0 of k; the function's extremes over these are taken.
    """
    means, moved = np.nanmean(columns, axis=0), []
    for i, (mean, here) in enumerate(zip(means, asked, strict=True)):
        step = np.eye(len(means))[i] * wilson_interval(0, int(here.sum()), found.level).high
        same = (np.array_equal(columns[:, i], columns[:, j], equal_nan=True) for j in range(i))
        if mean in (0.0, 1.0):
            moved.append(means + step if mean == 0 else means - step)
        elif any(same):
            moved += [means - step, means + step]
    ends = function(np.array([means, *moved]))
    return replace(found, low=float(np.min(ends)), high=float(np.max(ends)))


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
