"""What scikit-learn users write for each finder, for one site, persona and fold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.linalg import solve
from sklearn.covariance import LedoitWolf, ledoit_wolf  # noqa: TID253
from sklearn.decomposition import PCA  # noqa: TID253
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: TID253
from sklearn.linear_model import LogisticRegression  # noqa: TID253
from sklearn.neighbors import NearestCentroid  # noqa: TID253
from sklearn.preprocessing import StandardScaler  # noqa: TID253

Fit: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # x, y, pairs → vector


@dataclass(frozen=True)
class Peer:
    """One way to fit one problem.

    Attributes:
        finder: ours, that it is compared with.
        title: what is called.
        fit: from activations, classes and pairs to a vector.
        wanted: how many times faster ours is meant to be, at the same AUROC; only of peers that
            compute the same.
        exact: what both approximate, solved to the end by somebody else; the peer itself if it is
            exact. Not timed.
    """

    finder: str
    title: str
    fit: Fit
    wanted: float | None = None
    exact: Fit | None = None


# Every fit has the same arguments, whether it looks at the pairs or not.
# ruff: noqa: ARG001


def probe(tolerance: float, solver: str = "lbfgs") -> Fit:
    """Logistic regression on standardised features, back in residual units."""

    def fit(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(solver=solver, max_iter=1000, tol=tolerance)
        model.fit(scaler.transform(x), y)
        return model.coef_[0] / scaler.scale_

    return fit


def centroids(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Difference of class means."""
    negative, positive = NearestCentroid().fit(x, y).centroids_
    return positive - negative


def whitened(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Difference of means over the shrunken covariance within the classes."""
    means = [x[~y].mean(axis=0), x[y].mean(axis=0)]
    within = x - np.where(y[:, None], means[1], means[0])
    covariance, _ = ledoit_wolf(within, assume_centered=True)
    return solve(covariance, means[1] - means[0], assume_a="pos")


def discriminant(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """With each class's covariance shrunk: what our finder equals."""
    estimator = LedoitWolf(store_precision=False)
    lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=estimator)
    return lda.fit(x, y).coef_[0]


def standardised_discriminant(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """The same with each class standardised before it is shrunk: another estimate."""
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return lda.fit(x, y).coef_[0]


def principal_component(x: np.ndarray, y: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Of positive minus negative within every prompt."""
    number, index = np.unique(pair, return_inverse=True)
    sums = np.zeros((2, len(number), x.shape[1]))
    np.add.at(sums, (y.astype(int), index), x)
    counts = np.stack([np.bincount(index, ~y), np.bincount(index, y)])
    means = sums / counts[..., None]
    difference = (means[1] - means[0]) / 2
    # Both signs, so that the mean difference is not taken away.
    return PCA(1).fit(np.concatenate([difference, -difference])).components_[0]


# Newton's method with exact Hessians goes to the optimum of the same loss.
OPTIMUM = probe(1e-9, "newton-cholesky")

PEERS = (
    Peer(
        "linear_probe",
        "`StandardScaler`, `LogisticRegression`, its default tol 1e-4",
        probe(1e-4),
        5,
        OPTIMUM,
    ),
    Peer("linear_probe", "the same, tol 1e-5 as ours", probe(1e-5), 5, OPTIMUM),
    Peer("mean_difference", "`NearestCentroid`", centroids, 15),
    Peer(
        "whitened_difference",
        "`LinearDiscriminantAnalysis(lsqr)` with `LedoitWolf`: another estimate",
        discriminant,
    ),
    Peer("whitened_difference", "`ledoit_wolf` and a Cholesky solve by hand", whitened, 15),
    Peer("shrinkage_lda", "`LinearDiscriminantAnalysis(lsqr)` with `LedoitWolf`", discriminant, 15),
    Peer(
        "shrinkage_lda",
        '`LinearDiscriminantAnalysis(lsqr, "auto")`: standardises first',
        standardised_discriminant,
    ),
    Peer("principal_component", "`PCA(1)` of differences of both signs", principal_component),
)
