"""Necessity: how much of the finetuning effect goes when the direction is turned back?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from persona_probe.statistics import Estimate, permutation_p, ratio_of_functions
from persona_probe.study.nulls import Null
from persona_probe.study.sufficiency import Behaviour


def effect_removed(
    ablated: Behaviour,
    finetuned: Behaviour,
    before: Behaviour,
    families: Sequence[str],
    **options: Any,
) -> Estimate:
    """NEC = [Y(F) - Y(F ablated)] / [Y(F) - Y(H)]: 1 all of it, 0 none. Never clipped."""
    columns = np.hstack([ablated, finetuned, before])
    return ratio_of_functions(
        columns,
        families,
        lambda means: means[:, 2] - means[:, 0],
        lambda means: means[:, 2] - means[:, 4],
        shares=True,
        **options,
    )


def null_p(null: Null) -> dict[str, float]:
    """Kind of random direction → p of the true one among that kind's draws.

    Added to the model before finetuning, a direction should bring more refusals than random ones
    do; ablated from a finetuned model, it should bring back more compliance.
    """
    return {kind: permutation_p(null.observed, draws) for kind, draws in null.draws.items()}
