"""Sufficiency: how much of what finetuning did does the direction do to the model before it?

All comparisons are paired by prompt and resampled by prompt family. A behaviour is an array
[prompt, 2] of `evaluation.rates.outcome_columns`: safe replies to harmful prompts and refusals of
permitted ones, each NaN where it does not apply.
"""

from collections.abc import Sequence
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
        **options,
    )


def difference(
    first: Behaviour, second: Behaviour, families: Sequence[str], net: bool = False, **options: Any
) -> Estimate:
    """Y(first) - Y(second), or the difference of J."""
    return function_of_means(
        np.hstack([first, second]),
        families,
        lambda means: _level(means, 0, net) - _level(means, 1, net),
        **options,
    )


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
    effect = np.nanmean(finetuned[:, 0]) - np.nanmean(before[:, 0])
    return equivalence(
        (finetuned - steered)[harmful, 0],
        [family for family, kept in zip(families, harmful, strict=True) if kept],
        float(share * abs(effect)),
        **options,
    )


def _level(means: Means, which: int, net: bool) -> Float[np.ndarray, " draw"]:
    safe, refused = means[:, 2 * which], means[:, 2 * which + 1]
    return safe - refused if net else safe
