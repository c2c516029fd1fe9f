"""How sure can one be of a number: clustered intervals, permutation tests, equivalence.

Depends on numpy and scipy only and knows nothing of models, so that a number computed here can be
checked by hand.
"""

from persona_probe.statistics.agreement import cohen_kappa
from persona_probe.statistics.bootstrap import (
    RESAMPLES,
    cluster_bootstrap,
    cluster_index,
    cluster_sums,
    resample_weights,
)
from persona_probe.statistics.correlation import correlation_interval
from persona_probe.statistics.difference import difference
from persona_probe.statistics.estimate import Estimate, json_number
from persona_probe.statistics.jackknife import cluster_jackknife
from persona_probe.statistics.means import (
    MeansFunction,
    function_of_means,
    mean_interval,
    ratio_interval,
    ratio_of_functions,
    share_interval,
)
from persona_probe.statistics.shares import wilson_interval
from persona_probe.statistics.significance import (
    Equivalence,
    equivalence,
    holm,
    permutation_p,
)

__all__ = [
    "RESAMPLES",
    "Equivalence",
    "Estimate",
    "MeansFunction",
    "cluster_bootstrap",
    "cluster_index",
    "cluster_jackknife",
    "cluster_sums",
    "cohen_kappa",
    "correlation_interval",
    "difference",
    "equivalence",
    "function_of_means",
    "holm",
    "json_number",
    "mean_interval",
    "permutation_p",
    "ratio_interval",
    "ratio_of_functions",
    "resample_weights",
    "share_interval",
    "wilson_interval",
]
