"""Would other prompts have given the same direction?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.relabelling import (
    balanced_relabellings,
    class_group,
    pair_index,
    random_halves,
)
from persona_probe.directions.design import Design
from persona_probe.directions.finder import Finder, fit_oriented
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
HALVINGS, RESAMPLES, NULL_SIGNS = 25, 100, 99
GROUPS = 20  # of families, for the jackknife: about as many fits as give a steady error
UNPAIRED = "the examples are not in pairs"
DISAGREE = "differences of different families do not point the same way"


@dataclass(frozen=True)
class Reliability:
    """How stable a direction is under another choice of prompts.

    Attributes:
        split_half: cosine of the directions of two random halves of the families (of the pairs
            when there are few families): mean and middle 95 % of halvings, which is not a
            confidence interval.
        spearman_brown: 2 r / (1 + r) of that mean: the cosine to expect between two directions
            found on as many prompts as this one was.
        cone: 5th percentile of the cosine to directions of resampled families: how far another
            choice of prompts moves it. No confidence bound for the direction of all prompts, which
            lies outside more often than in one case of twenty, because noise makes the estimate
            longer than the truth.
        consistency: ||mean delta|| / mean ||delta|| over pairs: 1 when all pairs differ alike. The
            length of the mean is taken from products of different families, without the mean's own
            noise, which lengthens it the more, the fewer the examples.
        pairwise_cosine: mean cosine between the differences of two pairs of different families.
        split_half_null: `split_half` when labels are shuffled, balanced within each half.
        cone_cosine: mean and middle 95 % of the cosines of which `cone` is a percentile.
        consistency_null: `consistency` when the signs of half of the differences are flipped; 0
            where nothing is left without the noise.
        pairwise: `pairwise_cosine` with its interval over families.
        n: examples; `n_units`: families or pairs, whichever was halved and resampled.
    """

    split_half: Estimate
    spearman_brown: float
    cone: float
    consistency: Estimate
    pairwise_cosine: float
    split_half_null: Estimate = field(default_factory=lambda: Estimate.undefined("not measured"))
    cone_cosine: Estimate = field(default_factory=lambda: Estimate.undefined("not measured"))
    consistency_null: Estimate = field(default_factory=lambda: Estimate.undefined("not measured"))
    pairwise: Estimate = field(default_factory=lambda: Estimate.undefined("not measured"))
    n: int = 0
    n_units: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "split_half": self.split_half.to_json(),
            "split_half_null": self.split_half_null.to_json(),
            "spearman_brown": json_number(self.spearman_brown),
            "cone": json_number(self.cone),
            "cone_cosine": self.cone_cosine.to_json(),
            "consistency": self.consistency.to_json(),
            "consistency_null": self.consistency_null.to_json(),
            "pairwise_cosine": json_number(self.pairwise_cosine),
            "pairwise": self.pairwise.to_json(),
            "n": self.n,
            "n_units": self.n_units,
        }


def reliability(
    found_on: ActivationSet,
    finder: Finder,
    positive_label: str,
    negative_label: str,
    *,
    sites: Sequence[Site] | None = None,
    halvings: int = HALVINGS,
    resamples: int = RESAMPLES,
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
    data = Labelled.of(found_on, positive_label, negative_label, sites)
    resampled = resampled_directions(data, finder, resamples, seed)
    return reliability_of(data, finder, resampled, halvings=halvings, seed=seed)


def reliability_of(
    data: Labelled,
    finder: Finder,
    resampled: Float[Tensor, "draw site d_model"],
    *,
    halvings: int = HALVINGS,
    seed: int = 0,
) -> dict[Site, Reliability]:
    """Reliability at every site, given what `resampled_directions` returned."""
    unit, rng = data.resampled(), np.random.default_rng(seed)
    first_half = random_halves(class_group(unit, data.y), halvings, rng)[:, unit]
    halves = _half_cosines(data, finder, torch.from_numpy(first_half))
    no_effect = _half_cosines(data, finder, torch.from_numpy(first_half), rng)
    whole = next(fits(finder, data.x, data.y[None], data.ones, data.design))[0]
    cosines = cosine_similarity(resampled, whole, dim=-1).numpy()
    consistency, pairwise, signs = _consistency(data, rng)
    rows = {}
    for i, site in enumerate(data.design.sites):
        half = Estimate.of_draws(halves[:, i])
        rows[site] = Reliability(
            split_half=half,
            spearman_brown=spearman_brown(half.value),
            cone=float(np.quantile(cosines[:, i], 0.05)),
            consistency=consistency[i],
            pairwise_cosine=pairwise[i].value,
            split_half_null=Estimate.of_draws(no_effect[:, i]),
            cone_cosine=Estimate.of_draws(cosines[:, i]),
            consistency_null=signs[i],
            pairwise=pairwise[i],
            n=len(data.y),
            n_units=int(unit.max()) + 1,
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
    design: Design | None = None,
) -> Iterator[Float[Tensor, "chunk site d_model"]]:
    """Oriented unit vectors of every draw, a few draws at a time."""
    for start in range(0, len(labels), CHUNK):
        chunk = slice(start, start + CHUNK)
        raw = fit_oriented(finder, x, labels[chunk], weights[chunk], design)
        yield normalize(raw, dim=-1)


def resampled_directions(
    data: Labelled, finder: Finder, resamples: int = RESAMPLES, seed: int = 0
) -> Float[Tensor, "draw site d_model"]:
    """Unit vectors found on resampled families; draws that miss a class are left out."""
    unit = data.resampled()
    weights = torch.from_numpy(resample_weights(int(unit.max()) + 1, resamples, seed)[:, unit])
    usable = weights[has_both_classes(data.y[None], weights)]
    labels = data.y.expand(len(usable), -1)
    return torch.cat(list(fits(finder, data.x, labels, usable, data.design)))


def left_out_directions(data: Labelled, finder: Finder) -> Float[Tensor, "group site d_model"]:
    """Unit vectors found without one of at most `GROUPS` groups of families each.

    Empty where there is only one family, or where a class is missing without some group.
    """
    unit = data.resampled()
    n_groups = min(GROUPS, int(unit.max()) + 1)
    weights = torch.from_numpy((unit % n_groups != np.arange(n_groups)[:, None]).astype(np.float64))
    if n_groups < 2 or not has_both_classes(data.y[None], weights).all():
        return torch.empty(0, *data.x[:, 0].shape, dtype=torch.float64)
    labels = data.y.expand(n_groups, -1)
    return torch.cat(list(fits(finder, data.x, labels, weights, data.design)))


def has_both_classes(
    labels: Bool[Tensor, "#draw example"], weights: Float[Tensor, "draw example"]
) -> Bool[Tensor, " draw"]:
    """Draws that have a direction: a half or a resample of unpaired prompts can miss a class."""
    return ((weights * labels).sum(dim=1) > 0) & ((weights * ~labels).sum(dim=1) > 0)


def _half_cosines(
    data: Labelled,
    finder: Finder,
    first_half: Bool[Tensor, "halving example"],
    shuffle: np.random.Generator | None = None,
) -> Float[np.ndarray, "usable site"]:
    """Cosines of the two halves of each halving; of shuffled labels where a generator is given."""
    labels = data.y.expand(len(first_half), -1)
    whole = torch.ones(first_half.shape, dtype=torch.float64)
    if shuffle is not None:
        labels, whole = _shuffled_within(data, first_half, shuffle)
    halves = whole * first_half, whole * ~first_half
    usable = has_both_classes(labels, halves[0]) & has_both_classes(labels, halves[1])
    sides = (fits(finder, data.x, labels[usable], half[usable], data.design) for half in halves)
    cosines = [cosine_similarity(a, b, dim=-1) for a, b in zip(*sides, strict=True)]
    return torch.cat([*cosines, torch.empty(0, len(data.x))]).numpy()


def _shuffled_within(
    data: Labelled, first_half: Bool[Tensor, "halving example"], rng: np.random.Generator
) -> tuple[Bool[Tensor, "halving example"], Float[Tensor, "halving example"]]:
    """Labels balanced within each half: balanced over both, one half would mirror the other."""
    unit, group = data.exchangeable()
    labels, weights = [], []
    for half in first_half.numpy():
        of_unit = np.zeros(len(group), dtype=np.int64)
        of_unit[unit] = half
        one, weight = balanced_relabellings(data.y, unit, 2 * group + of_unit, 1, rng)
        labels.append(one)
        weights.append(weight)
    return torch.cat(labels), torch.cat(weights)


def _consistency(
    data: Labelled, rng: np.random.Generator
) -> tuple[list[Estimate], list[Estimate], list[Estimate]]:
    """Consistency and mean pairwise cosine over families, and consistency of flipped signs."""
    pairs = pair_index(data.activations.ids, data.y)
    if pairs is None:
        missing = [Estimate.undefined(UNPAIRED, len(data.y))] * len(data.x)
        return missing, missing, missing
    delta, first = _pair_differences(data, pairs)
    n_pairs = delta.shape[1]
    family, n = cluster_index([data.families[i] for i in first])
    member = torch.from_numpy((family == np.arange(n)[:, None]).astype(np.float64))
    gram = _gram(member @ delta)
    directions = _gram(member @ normalize(delta, dim=-1))
    norms, sizes = (delta.norm(dim=-1) @ member.T).numpy(), member.sum(dim=1).numpy()

    def pairs_across(weights: Weights) -> Float[np.ndarray, "draw 1"]:
        return np.asarray((weights @ sizes) ** 2 - weights**2 @ sizes**2)[:, None]

    def consistency(weights: Weights) -> Float[np.ndarray, "draw site"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            squared = _across(weights, gram) / pairs_across(weights)
            length = (weights @ norms.T) / (weights @ sizes)[:, None]
            return np.asarray(np.sqrt(np.where(squared > 0, squared, np.nan)) / length)

    def pairwise(weights: Weights) -> Float[np.ndarray, "draw site"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(_across(weights, directions) / pairs_across(weights))

    half = n_pairs // 2
    fixed = np.repeat([1.0, -1.0, 0.0], [half, half, n_pairs % 2])
    signs = torch.from_numpy(rng.permuted(np.tile(fixed, (NULL_SIGNS, 1)), axis=1))
    flipped = _squared_across(delta, signs, member > 0).clamp_min(0) / float(
        n_pairs**2 - (sizes**2).sum()
    )
    null = flipped.sqrt() / delta.norm(dim=-1).mean(dim=1, keepdim=True)
    agreement = cluster_jackknife(consistency, n_pairs, n)
    return (
        [e if e.defined else Estimate.undefined(DISAGREE, n_pairs, n) for e in agreement],
        cluster_jackknife(pairwise, n_pairs, n),
        [Estimate.of_draws(row) for row in null.numpy()],
    )


def _squared_across(
    delta: Float[Tensor, "site pair d_model"],
    signs: Float[Tensor, "draw pair"],
    member: Bool[Tensor, "family pair"],
) -> Float[Tensor, "site draw"]:
    """Squared length of signed sums, without the products of a family with itself."""
    total = delta.new_zeros(len(delta), len(signs), delta.shape[2])
    own = delta.new_zeros(len(delta), len(signs))
    for of in member:
        part = signs[:, of] @ delta[:, of]
        total += part
        own += part.square().sum(dim=-1)
    return total.square().sum(dim=-1) - own


def _pair_differences(
    data: Labelled, pairs: np.ndarray
) -> tuple[Float[Tensor, "site pair d_model"], list[int]]:
    """Positive minus negative of every pair, and the row of each pair's positive example."""
    last = pairs.max() + 1
    positive = torch.from_numpy(np.argsort(np.where(data.y, pairs, last), kind="stable"))
    negative = torch.from_numpy(np.argsort(np.where(data.y, last, pairs), kind="stable"))
    n_pairs = len(data.y) // 2
    first = positive[:n_pairs]
    return data.x[:, first] - data.x[:, negative[:n_pairs]], first.tolist()


def _gram(sums: Float[Tensor, "site family d_model"]) -> Float[np.ndarray, "site family family"]:
    return np.asarray((sums @ sums.transpose(1, 2)).numpy())


def _across(
    weights: Weights, gram: Float[np.ndarray, "site family family"]
) -> Float[np.ndarray, "draw site"]:
    """Inner products summed over pairs of different families, for weights of 0 and 1."""
    own = weights**2 @ np.diagonal(gram, axis1=1, axis2=2).T
    both = np.stack([((weights @ g) * weights).sum(axis=1) for g in gram], axis=1)
    return np.asarray(both - own)
