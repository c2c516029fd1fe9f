"""Do two raters agree beyond chance?"""

from collections.abc import Sequence

import numpy as np

from persona_probe.statistics.bootstrap import (
    Weights,
    cluster_bootstrap,
    cluster_index,
    cluster_sums,
)
from persona_probe.statistics.estimate import Estimate


def cohen_kappa(
    first: Sequence[str], second: Sequence[str], clusters: Sequence[str], **options: object
) -> Estimate:
    """Cohen's kappa of two raters' labels, with a clustered bootstrap interval.

    (observed - expected agreement) / (1 - expected agreement), the expected one from each rater's
    own label frequencies (Cohen 1960). Undefined when both raters give one and the same label
    throughout, and when there are no items: there is nothing to agree about beyond chance.

    Args:
        first: labels of one rater.
        second: labels of the other on the same items.
        clusters: the group of each item, the unit of resampling.
        options: of `cluster_bootstrap`.
    """
    labels = sorted({*first, *second})
    n = len(first)
    if n == 0:
        return Estimate.undefined("no reply was scored by both")
    if len(labels) < 2:
        return Estimate.undefined(f"both raters say {labels[0]!r} of all {n} that both scored", n)
    place = {label: i for i, label in enumerate(labels)}
    k = len(labels)
    cell = np.array([place[a] * k + place[b] for a, b in zip(first, second, strict=True)])
    index, n_clusters = cluster_index(clusters)
    sums = cluster_sums(np.eye(k * k)[:, cell], index, n_clusters)

    def kappa(weights: Weights) -> np.ndarray:
        table = (weights @ sums.T).reshape(-1, k, k)
        table = table / table.sum(axis=(1, 2), keepdims=True)
        observed = np.trace(table, axis1=1, axis2=2)
        expected = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)

    return cluster_bootstrap(kappa, n, n_clusters, **options)[0]  # type: ignore[arg-type]
