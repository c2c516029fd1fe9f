"""How well two classes separate along a direction: AUROC, d', balanced accuracy.

All are written as functions of family weights, [draw family] -> [draw row], so that leaving out one
family at a time gives the intervals of every site and every baseline (rows).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from persona_probe.statistics import Estimate, cluster_index, cluster_jackknife, cluster_sums
from persona_probe.statistics.bootstrap import Statistic, Weights

Scores: TypeAlias = Float[np.ndarray, "row example"]
Classes: TypeAlias = Bool[np.ndarray, " example"]
FamilyIndex: TypeAlias = Int[np.ndarray, " example"]


@dataclass(frozen=True)
class Separation:
    """Estimates per row of scores, and per baseline.

    Attributes:
        auroc: area under the ROC curve.
        balanced_accuracy: with a threshold fixed beforehand.
        d_prime: distance of class means in pooled standard deviations.
        gain: AUROC minus that of the best baseline, on the same families.
        baselines: AUROC of each baseline.
    """

    auroc: list[Estimate]
    balanced_accuracy: list[Estimate]
    d_prime: list[Estimate]
    gain: list[Estimate]
    baselines: dict[str, Estimate]


def separation(
    scores: Scores,
    thresholds: Float[np.ndarray, " row"],
    baselines: Mapping[str, Float[np.ndarray, " example"]],
    y: Classes,
    families: Sequence[str],
) -> Separation:
    """Everything about how scores separate the classes, with intervals over families.

    Args:
        scores: one row per site.
        thresholds: a score above it is called positive; NaN where there is none.
        baselines: other scores of the same examples.
        y: true classes.
        families: prompt family of each example.
    """
    family, n_families = cluster_index(families)
    shape = len(y), n_families
    rows = len(scores)
    everything = np.vstack([scores, *(row[None] for row in baselines.values())])
    areas = auroc_statistic(everything, y, family, n_families)
    above = scores > thresholds[:, None]
    right = balanced_accuracy_statistic(above, y, family, n_families)
    both = cluster_jackknife(areas, *shape, bounded=True)
    best = rows + int(np.argmax([area.value for area in both[rows:]])) if baselines else 0

    def gained(weights: Weights) -> Float[np.ndarray, "draw row"]:
        found = areas(weights)
        return np.asarray(found[:, :rows] - found[:, best, None])

    accuracy = cluster_jackknife(right, *shape, bounded=True)
    gain = cluster_jackknife(gained, *shape)
    distance = cluster_jackknife(d_prime_statistic(scores, y, family, n_families), *shape)
    for i in np.flatnonzero(np.isnan(thresholds)):
        accuracy[i] = Estimate.undefined("the direction has no midpoint", len(y), n_families)
    if not baselines:
        gain = [Estimate.undefined("no baseline to compare with", len(y), n_families)] * rows
    surface = dict(zip(baselines, both[rows:], strict=True))
    return Separation(both[:rows], accuracy, distance, gain, surface)


def auroc(scores: Float[np.ndarray, "*row example"], y: Classes) -> Float[np.ndarray, "*row"]:
    """Share of (positive, negative) pairs in the right order, ties counting half.

    Mann & Whitney's U over the number of pairs; equals `sklearn.metrics.roc_auc_score`.
    """
    ranks = rankdata(scores, axis=-1)
    n_positive, n_negative = int(y.sum()), int((~y).sum())
    surplus = ranks[..., y].sum(axis=-1) - n_positive * (n_positive + 1) / 2
    return np.asarray(surplus / (n_positive * n_negative))


def permuted_aurocs(
    scores: Scores, y: Classes, stratum: FamilyIndex, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw row"]:
    """AUROC with labels permuted within strata; the same permutations for every row."""
    in_order = np.argsort(stratum, kind="stable")
    shuffled = np.argsort(stratum + rng.random((draws, len(y))), axis=1)
    labels = np.empty((draws, len(y)))
    np.put_along_axis(labels, shuffled, np.broadcast_to(y[in_order], labels.shape), axis=1)
    n_positive, n_negative = int(y.sum()), int((~y).sum())
    surplus = labels @ rankdata(scores, axis=-1).T - n_positive * (n_positive + 1) / 2
    return np.asarray(surplus / (n_positive * n_negative))


def auroc_statistic(scores: Scores, y: Classes, family: FamilyIndex, n_families: int) -> Statistic:
    """AUROC as a quadratic form in family weights.

    With U_fg the wins of positives of family f over negatives of family g, and P, N the class
    counts per family, it is (w' U w) / ((w' P) (w' N)).
    """
    member = (family[:, None] == np.arange(n_families)).astype(np.float64)
    by_family = [wins_by_family(row, y, member) for row in scores]
    n_positive, n_negative = member[y].sum(axis=0), member[~y].sum(axis=0)

    def statistic(weights: Weights) -> Float[np.ndarray, "draw row"]:
        won = np.stack([((weights @ u) * weights).sum(axis=1) for u in by_family], axis=1)
        pairs = (weights @ n_positive) * (weights @ n_negative)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(won / pairs[:, None])

    return statistic


def wins_by_family(
    scores: Float[np.ndarray, " example"], y: Classes, member: Float[np.ndarray, "example family"]
) -> Float[np.ndarray, "family family"]:
    """Wins of the positives of family f over the negatives of family g, ties counting half.

    By sorting: the negatives below a score are a cumulative count, so that no pair is looked at.
    """
    order = np.argsort(scores[~y], kind="stable")
    negatives = scores[~y][order]
    below = np.zeros((len(order) + 1, member.shape[1]))
    np.cumsum(member[~y][order], axis=0, out=below[1:])
    first = np.searchsorted(negatives, scores[y], "left")
    last = np.searchsorted(negatives, scores[y], "right")
    return np.asarray(member[y].T @ (below[first] + below[last]) / 2)


def auroc_intervals(scores: Scores, y: Classes, families: Sequence[str]) -> list[Estimate]:
    """AUROC of each row, with the intervals that `separation` would give it."""
    family, n_families = cluster_index(families)
    statistic = auroc_statistic(scores, y, family, n_families)
    return cluster_jackknife(statistic, len(y), n_families, bounded=True)


def d_prime_statistic(
    scores: Scores, y: Classes, family: FamilyIndex, n_families: int
) -> Statistic:
    """Sensitivity d' = (mean_1 - mean_0) / sqrt((var_1 + var_0) / 2), the variances unbiased."""
    moments = [power_sums(scores, of, family, n_families) for of in (y, ~y)]

    def statistic(weights: Weights) -> Float[np.ndarray, "draw row"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            (mean_1, var_1), (mean_0, var_0) = (mean_and_variance(weights, m) for m in moments)
            return np.asarray((mean_1 - mean_0) / np.sqrt((var_1 + var_0) / 2))

    return statistic


def balanced_accuracy_statistic(
    above: Bool[np.ndarray, "row example"], y: Classes, family: FamilyIndex, n_families: int
) -> Statistic:
    """Mean of the two classes' shares on their own side of the threshold.

    Args:
        above: whether each score lies beyond the direction's midpoint.
        y: the true classes.
        family: family of each example.
        n_families: how many there are.
    """
    right = (above == y).astype(np.float64)
    hits = [cluster_sums(right * of, family, n_families) for of in (y, ~y)]
    counts = [cluster_sums(1.0 * of[None], family, n_families) for of in (y, ~y)]

    def statistic(weights: Weights) -> Float[np.ndarray, "draw row"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = [(weights @ h.T) / (weights @ c.T) for h, c in zip(hits, counts, strict=True)]
            return np.asarray((shares[0] + shares[1]) / 2)

    return statistic


def power_sums(
    scores: Scores, of: Classes, family: FamilyIndex, n_families: int
) -> list[Float[np.ndarray, "row family"]]:
    """Count, sum and sum of squares of some of the scores, centred, per family."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    return [
        cluster_sums(np.where(of, centred**power, 0.0), family, n_families) for power in range(3)
    ]


def mean_and_variance(
    weights: Weights, moments: Sequence[Float[np.ndarray, "row family"]]
) -> tuple[Float[np.ndarray, "draw row"], Float[np.ndarray, "draw row"]]:
    """Mean (around that of all scores) and unbiased variance of each resample."""
    n, first, second = (weights @ moment.T for moment in moments)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = first / n
        return mean, (second / n - mean**2) * n / (n - 1)
