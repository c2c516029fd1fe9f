"""How much of the shift is there on text that has nothing to do with the finetuning (ADL).

A finetune that adds the same vector everywhere is visible in the first tokens of unrelated text
(arXiv:2510.13900). Such a shift need not be a persona: it may be the topic of the training data.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from persona_probe.directions.families.products import (
    NO_LENGTH,
    cosine_with,
    gram,
    jackknifed,
    pairs_across,
    product_across,
)
from persona_probe.directions.families.shift import Shift
from persona_probe.errors import SiteMismatchError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate
from persona_probe.statistics.bootstrap import Weights


@dataclass(frozen=True)
class ContextFree:
    """The mean shift on unrelated text against that on the task's text, at one site.

    Attributes:
        name: of the finetune.
        site: where.
        share: ||mean shift on unrelated text||^2 / ||mean shift on task text||^2, both without
            sampling noise; undefined unless the interval of the denominator excludes 0. May exceed
            1. Its interval varies the unrelated texts and the task's families independently.
        cosine: between the two mean shifts, without sampling noise.
        n_neutral: unrelated texts.
        n_task: examples of the task.
    """

    name: str
    site: Site
    share: Estimate
    cosine: Estimate
    n_neutral: int
    n_task: int


def context_free(task: Shift, neutral: Shift) -> list[ContextFree]:
    """The context-free share at every site of both.

    Args:
        task: the shift on the text that the finetune is about.
        neutral: the shift of the same finetune on unrelated text, best its first few tokens.

    Raises:
        SiteMismatchError: the two were not read at the same sites.
    """
    if task.sites != neutral.sites or task.delta.shape[2] != neutral.delta.shape[2]:
        raise SiteMismatchError(
            f"the neutral text was read at {len(neutral.sites)} sites of width "
            f"{neutral.delta.shape[2]}, the task at {len(task.sites)} of width "
            f"{task.delta.shape[2]}; capture both at the same sites"
        )
    task_length, neutral_length = _squared_length(task), _squared_length(neutral)
    rows = []
    for i, site in enumerate(task.sites):
        below, above = task_length[i], neutral_length[i]
        rows.append(
            ContextFree(
                name=task.name,
                site=site,
                share=_ratio(above, below),
                cosine=_cosine(neutral, task, i, below),
                n_neutral=neutral.n,
                n_task=task.n,
            )
        )
    return rows


def _squared_length(shift: Shift) -> list[Estimate]:
    squared = gram(shift.family_sums, shift.family_sums)

    def statistic(weights: Weights) -> Float[np.ndarray, "draw site"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = pairs_across(weights, shift.family_sizes)
            return np.asarray(product_across(weights, squared) / pairs)

    return jackknifed(statistic, shift, "one family: its noise cannot be told apart")


def _ratio(above: Estimate, below: Estimate) -> Estimate:
    """Quotient of two independent estimates, by Fieller's theorem; undefined where 0 is below."""
    n, clusters = above.n, min(above.n_clusters, below.n_clusters)
    if not (above.defined and below.defined and below.excludes(0.0) and below.value > 0):
        reason = below.reason or above.reason
        said = f"the squared shift on the task, {below}, is not above 0"
        return Estimate.undefined(reason or said, n, clusters)
    a, b = above.value, below.value
    half_a, half_b = (above.high - above.low) / 2, (below.high - below.low) / 2
    curvature = b**2 - half_b**2
    spread = np.sqrt(max(0.0, (a * b) ** 2 - curvature * (a**2 - half_a**2)))
    low, high = (a * b - spread) / curvature, (a * b + spread) / curvature
    return Estimate(a / b, float(low), float(high), n, clusters, above.level)


def _cosine(neutral: Shift, task: Shift, i: int, below: Estimate) -> Estimate:
    """Cosine at the i-th site, the task's mean shift held fixed in its interval."""
    if not (below.defined and below.value > 0):
        return Estimate.undefined(NO_LENGTH, neutral.n, len(neutral.family_sizes))
    # Divided by its debiased length, so that the task's own noise does not lower the cosine.
    target = task.mean[i] / np.sqrt(below.value)
    along = (neutral.family_sums[i] @ target).numpy()[None, None]
    squared = gram(neutral.family_sums[i : i + 1], neutral.family_sums[i : i + 1])
    statistic = cosine_with(along, squared, neutral.family_sizes)
    return jackknifed(statistic, neutral, NO_LENGTH)[1]
