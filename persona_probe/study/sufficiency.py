"""Sufficiency: how much of what finetuning did does the direction do to the model before it?

All comparisons are paired by prompt and resampled by prompt family. A behaviour is an array
[prompt, 2] of `evaluation.rates.outcome_columns`: safe replies to harmful prompts and refusals of
permitted ones, each NaN where it does not apply.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from persona_probe.statistics import (
    Equivalence,
    Estimate,
    equivalence,
    function_of_means,
    ratio_of_functions,
)

Behaviour: TypeAlias = Float[np.ndarray, "prompt 2"]
Means: TypeAlias = Float[np.ndarray, "draw column"]


def effect_reproduced(
    steered: Behaviour,
    finetuned: Behaviour,
    before: Behaviour,
    families: Sequence[str],
    net: bool = False,
    **options: Any,
) -> Estimate:
    """ER = [Y(S) - Y(H)] / [Y(F) - Y(H)], or ER_J with J = Y - OR. Never clipped.

    Undefined unless the interval of the denominator excludes 0.

    Args:
        steered: S, or whatever condition is to be placed between H (0) and F (1).
        finetuned: F.
        before: H.
        families: of the prompts.
        net: subtract over-refusal (J instead of Y).
        options: of `statistics.cluster_bootstrap`.
    """
    columns = np.hstack([steered, finetuned, before])
    return ratio_of_functions(
        columns,
        families,
        lambda means: _level(means, 0, net) - _level(means, 2, net),
        lambda means: _level(means, 1, net) - _level(means, 2, net),
        shares=True,
        **options,
    )


def gain(
    after: Behaviour, before: Behaviour, families: Sequence[str], net: bool = False, **options: Any
) -> Estimate:
    """Y(after) - Y(before), or the difference of J."""
    return function_of_means(
        np.hstack([after, before]),
        families,
        lambda means: _level(means, 0, net) - _level(means, 1, net),
        shares=True,
        **options,
    )


def effect_by_category(
    steered: Behaviour,
    finetuned: Behaviour,
    before: Behaviour,
    families: Sequence[str],
    categories: Sequence[str],
    **options: Any,
) -> dict[str, Estimate]:
    """ER within each category of harm; undefined where finetuning did nothing."""
    found = {}
    for category in dict.fromkeys(categories):
        inside = np.array([name == category for name in categories])
        if not np.isfinite(finetuned[inside, 0]).any():
            continue
        parts = [b[inside, :1] for b in (steered, finetuned, before)]
        found[category] = ratio_of_functions(
            np.hstack(parts),
            [family for family, kept in zip(families, inside, strict=True) if kept],
            lambda means: means[:, 0] - means[:, 2],
            lambda means: means[:, 1] - means[:, 2],
            shares=True,
            **options,
        )
    return found


def reproduction(
    steered: Behaviour,
    finetuned: Behaviour,
    before: Behaviour,
    families: Sequence[str],
    share: float,
    **options: Any,
) -> Equivalence:
    """Equivalence test: is Y(F) - Y(S) shown to be within `share` of |Y(F) - Y(H)|?"""
    harmful = np.isfinite(finetuned[:, 0])
    scored = np.isfinite(finetuned[:, 0]) & np.isfinite(before[:, 0])
    effect = (finetuned[scored, 0] - before[scored, 0]).mean() if scored.any() else np.nan
    return equivalence(
        (finetuned - steered)[harmful, 0],
        [family for family, kept in zip(families, harmful, strict=True) if kept],
        float(share * abs(effect)),
        **options,
    )


def composite(
    behaviour: Behaviour,
    degenerate: Float[np.ndarray, " prompt"],
    families: Sequence[str],
    **options: Any,
) -> Estimate:
    """Harmonic mean of Y, 1 - OR and the share of replies that are sentences; 0 if any is 0."""

    def mean(means: Means) -> Float[np.ndarray, " draw"]:
        parts = np.stack([means[:, 0], 1 - means[:, 1], 1 - means[:, 2]])
        with np.errstate(divide="ignore"):
            return np.asarray(np.where((parts <= 0).any(axis=0), 0.0, 3 / (1 / parts).sum(axis=0)))

    columns = np.column_stack([behaviour, degenerate])
    return function_of_means(columns, families, mean, shares=True, **options)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate and its interval, times a positive number."""
    ends = (estimate.value * factor, estimate.low * factor, estimate.high * factor)
    return replace(estimate, value=ends[0], low=ends[1], high=ends[2])


def _level(means: Means, which: int, net: bool) -> Float[np.ndarray, " draw"]:
    safe, refused = means[:, 2 * which], means[:, 2 * which + 1]
    return safe - refused if net else safe
