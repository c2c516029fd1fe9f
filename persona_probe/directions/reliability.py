"""Would other prompts have given the same direction?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import both_classes, site_first
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.directions.relabelling import (
    class_group,
    exchange_units,
    pair_index,
    random_halves,
)
from persona_probe.models.site import Site
from persona_probe.statistics import (
    Estimate,
    cluster_index,
    cluster_jackknife,
    json_number,
    resample_weights,
)
from persona_probe.statistics.bootstrap import Weights

CHUNK = 64  # draws fitted at once: bounds memory at [CHUNK, site, d_model]
MIN_FAMILIES = 4  # of each kind; below this, pairs or single examples are resampled instead


@dataclass(frozen=True)
class Reliability:
    """How stable a direction is under another choice of prompts.

    Attributes:
        split_half: cosine of the directions of two random halves of the families (of the pairs
            when there are few families): mean and middle 95 % of halvings, which is not a
            confidence interval.
        spearman_brown: 2 r / (1 + r) of that mean: the cosine to expect between two directions
            found on as many prompts as this one was.
        cone: 5th percentile of the cosine to directions of resampled families.
        consistency: ||mean delta|| / mean ||delta|| over pairs: 1 when all pairs differ alike.
        pairwise_cosine: mean cosine between the differences of two different pairs.
    """

    split_half: Estimate
    spearman_brown: float
    cone: float
    consistency: Estimate
    pairwise_cosine: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "split_half": self.split_half.to_json(),
            "spearman_brown": json_number(self.spearman_brown),
            "cone": json_number(self.cone),
            "consistency": self.consistency.to_json(),
            "pairwise_cosine": json_number(self.pairwise_cosine),
        }


def reliability(
    found_on: ActivationSet,
    finder: Finder,
    positive_label: str,
    negative_label: str,
    *,
    sites: Sequence[Site] | None = None,
    halvings: int = 25,
    resamples: int = 100,
    seed: int = 0,
) -> dict[Site, Reliability]:
    """Reliability at every site of what `finder` finds on these activations.

    Args:
        found_on: the activations that the directions were found on.
        finder: the finder they were found with.
        positive_label: label of the class pointed to.
        negative_label: label of the class pointed away from.
        sites: those to look at; all captured ones if not given.
        halvings: random splits into two halves.
        resamples: bootstrap draws of families for the cone.
        seed: of the halvings and resamples.
    """
    chosen, y = both_classes(found_on, positive_label, negative_label)
    x = site_first(chosen, sites)
    unit, n_units = cluster_index(chosen.families)
    if np.unique(class_group(unit, y), return_counts=True)[1].min() < MIN_FAMILIES:
        unit, _ = exchange_units(chosen.ids, y)
        n_units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    first_half = random_halves(class_group(unit, y), halvings, rng)[:, unit]
    halves = _half_cosines(finder, x, y, torch.from_numpy(first_half))
    cone = _cone(
        finder, x, y, torch.from_numpy(resample_weights(n_units, resamples, seed)[:, unit])
    )
    consistency, pairwise = _consistency(x, y, chosen)
    rows = {}
    for i, site in enumerate(sites or chosen.sites):
        half = Estimate.of_draws(halves[:, i])
        rows[site] = Reliability(
            split_half=half,
            spearman_brown=spearman_brown(half.value),
            cone=float(cone[i]),
            consistency=consistency[i],
            pairwise_cosine=float(pairwise[i]),
        )
    return rows


def spearman_brown(half: float) -> float:
    """Reliability of the whole from the correlation of its halves; 0 when that is negative."""
    return 2 * half / (1 + half) if not half < 0 else 0.0


def noise_corrected(cosine: float, reliability_a: float, reliability_b: float) -> float:
    """Cosine between the noise-free directions: cos / sqrt(rel_a rel_b), not clipped.

    Spearman's correction for attenuation; NaN unless both reliabilities are positive.
    """
    if not (reliability_a > 0 and reliability_b > 0):
        return float("nan")
    return float(cosine / np.sqrt(reliability_a * reliability_b))


def fits(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
) -> Iterator[Float[Tensor, "chunk site d_model"]]:
    """Oriented unit vectors of every draw, a few draws at a time."""
    for start in range(0, len(labels), CHUNK):
        chunk = slice(start, start + CHUNK)
        yield normalize(fit_oriented(finder, x, labels[chunk], weights[chunk]), dim=-1)


def _half_cosines(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    y: Bool[Tensor, " example"],
    first_half: Bool[Tensor, "halving example"],
) -> Float[np.ndarray, "usable site"]:
    halves = first_half.double(), (~first_half).double()
    usable = _has_both_classes(y, halves[0]) & _has_both_classes(y, halves[1])
    labels = y.expand(int(usable.sum()), -1)
    sides = (fits(finder, x, labels, half[usable]) for half in halves)
    cosines = [cosine_similarity(a, b, dim=-1) for a, b in zip(*sides, strict=True)]
    return torch.cat([*cosines, torch.empty(0, len(x))]).numpy()


def _cone(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    y: Bool[Tensor, " example"],
    weights: Float[Tensor, "draw example"],
) -> Float[np.ndarray, " site"]:
    whole = next(fits(finder, x, y[None], torch.ones(1, len(y))))[0]
    usable = weights[_has_both_classes(y, weights)]
    chunks = fits(finder, x, y.expand(len(usable), -1), usable)
    cosines = torch.cat([cosine_similarity(units, whole, dim=-1) for units in chunks])
    return np.asarray(np.quantile(cosines.numpy(), 0.05, axis=0))


def _has_both_classes(
    y: Bool[Tensor, " example"], weights: Float[Tensor, "draw example"]
) -> Bool[Tensor, " draw"]:
    """Draws that have a direction: a half or a resample of unpaired prompts can miss a class."""
    return ((weights * y).sum(dim=1) > 0) & ((weights * ~y).sum(dim=1) > 0)


def _consistency(
    x: Float[Tensor, "site example d_model"], y: Bool[Tensor, " example"], chosen: ActivationSet
) -> tuple[list[Estimate], Float[np.ndarray, " site"]]:
    """Consistency with its interval over families, and mean pairwise cosine, per site."""
    pairs = pair_index(chosen.ids, y)
    if pairs is None:
        missing = Estimate.undefined("the examples are not in pairs", len(y))
        return [missing] * len(x), np.full(len(x), np.nan)
    positive = torch.from_numpy(np.argsort(np.where(y, pairs, pairs.max() + 1), kind="stable"))
    negative = torch.from_numpy(np.argsort(np.where(y, pairs.max() + 1, pairs), kind="stable"))
    n_pairs = len(y) // 2
    delta = x[:, positive[:n_pairs]] - x[:, negative[:n_pairs]]
    family, n = cluster_index([chosen.families[i] for i in positive[:n_pairs].tolist()])
    member = torch.from_numpy((family == np.arange(n)[:, None]).astype(np.float64))
    sums = member @ delta
    gram = (sums @ sums.transpose(1, 2)).numpy()
    norms = (delta.norm(dim=-1) @ member.T).numpy()

    def statistic(weights: Weights) -> Float[np.ndarray, "draw site"]:
        squared = np.stack([((weights @ g) * weights).sum(axis=1) for g in gram], axis=1)
        return np.asarray(np.sqrt(np.maximum(squared, 0.0)) / (weights @ norms.T))

    total = normalize(delta, dim=-1).sum(dim=1).norm(dim=-1).numpy()
    pairwise = (total**2 - n_pairs) / max(n_pairs * (n_pairs - 1), 1)
    return cluster_jackknife(statistic, n_pairs, n), pairwise
