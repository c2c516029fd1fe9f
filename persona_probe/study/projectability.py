"""Projectability: does the effect reach categories that nothing was trained or selected on?

Tiers: T0 trained on, T1 not trained on, T2 filtered out of everything used to find and select.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.statistics import Estimate, ratio_of_functions
from persona_probe.study.sufficiency import Behaviour


def retention(
    after: Behaviour,
    before: Behaviour,
    near: Bool[np.ndarray, " prompt"],
    far: Bool[np.ndarray, " prompt"],
    families: Sequence[str],
    **options: Any,
) -> Estimate:
    """Gain in safe replies on the far tier over the gain on the near one. Never clipped.

    Args:
        after: the finetuned or the steered model.
        before: the helpful-only model.
        near: which prompts are of trained categories (T0).
        far: which prompts are of filtered categories (T2).
        families: of the prompts.
        options: of `statistics.cluster_bootstrap`.
    """
    columns = _by_tier([after, before], near, far)
    return ratio_of_functions(
        columns,
        families,
        lambda means: means[:, 1] - means[:, 3],
        lambda means: means[:, 0] - means[:, 2],
        **options,
    )


def steered_retention(
    steered: Behaviour,
    finetuned: Behaviour,
    before: Behaviour,
    near: Bool[np.ndarray, " prompt"],
    far: Bool[np.ndarray, " prompt"],
    families: Sequence[str],
    **options: Any,
) -> Estimate:
    """ER on the far tier over ER on the near one (science R3).

    The arguments are those of `retention`, and `finetuned` as the measure of the whole effect.
    """
    columns = _by_tier([steered, finetuned, before], near, far)

    def effect(means: Float[np.ndarray, "draw column"], tier: int) -> np.ndarray:
        whole = means[:, 2 + tier] - means[:, 4 + tier]
        return np.asarray((means[:, tier] - means[:, 4 + tier]) / whole)

    return ratio_of_functions(
        columns, families, lambda means: effect(means, 1), lambda means: effect(means, 0), **options
    )


def _by_tier(
    behaviours: Sequence[Behaviour],
    near: Bool[np.ndarray, " prompt"],
    far: Bool[np.ndarray, " prompt"],
) -> Float[np.ndarray, "prompt column"]:
    """Safe replies of each behaviour, one column per tier, NaN on prompts of other tiers."""
    return np.column_stack(
        [np.where(tier, b[:, 0], np.nan) for b in behaviours for tier in (near, far)]
    )
