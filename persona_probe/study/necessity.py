"""Necessity: how much of the finetuning effect goes when the direction is turned back?

The default ablation sets the finetuned model's component along the direction to the level the
model before finetuning has, at every site, since later blocks can rebuild what is removed at one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, ratio_of_functions
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.arm import Intervention
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
        **options,
    )


def turned_back(
    directions: Mapping[Site, Direction], before: ActivationSet
) -> tuple[Intervention, ...]:
    """Ablate each site's own direction to the level of the model before finetuning.

    Args:
        directions: one per site to ablate at.
        before: activations of the model before finetuning on neutral prompts, read at the
            position at which the directions were read.
    """
    return tuple(
        Intervention(direction, Ablate(level=float((before.site(site) @ direction.unit).mean())))
        for site, direction in directions.items()
    )
