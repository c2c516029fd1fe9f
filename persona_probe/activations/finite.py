"""Numbers that must not get into a store unnoticed."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.site import Site

LARGEST_FLOAT16 = torch.finfo(torch.float16).max


def require_finite(
    values: Float[Tensor, "example site d_model"], name: Callable[[int], str], sites: Sequence[Site]
) -> None:
    """Name the first row and site whose activations are not numbers.

    Args:
        values: of some rows.
        name: a row's id, by its place in `values`; asked only when there is something to say.
        sites: of the values.

    Raises:
        PersonaProbeError: an activation is NaN or infinite.
    """
    if _largest(values) < math.inf:
        return
    bad = (~torch.isfinite(values).all(dim=-1)).nonzero()
    row, column = bad[0].tolist()
    raise PersonaProbeError(
        f"the activations of {name(row)!r} at {sites[column]} are NaN or infinite; load the "
        "model in float32 or bfloat16"
    )


def within_float16(
    values: Float[Tensor, "example site d_model"], name: Callable[[int], str], sites: Sequence[Site]
) -> Float[Tensor, "example site d_model"]:
    """The values as float16.

    Args:
        values: of some rows.
        name: a row's id, by its place in `values`; asked only when there is something to say.
        sites: of the values.

    Raises:
        PersonaProbeError: one lies beyond its range; the message names its row and site.
    """
    rounded = values.half()
    if _largest(values) <= LARGEST_FLOAT16:
        return rounded
    beyond = rounded.isinf().any(dim=-1).nonzero()
    if len(beyond):
        row, column = beyond[0].tolist()
        largest = float(values[row, column].abs().max())
        raise PersonaProbeError(
            f"an activation of {name(row)!r} at {sites[column]} has size {largest:g}, and float16 "
            f"ends at {LARGEST_FLOAT16:g}; store them as float32"
        )
    return rounded


def _largest(values: Float[Tensor, "example site d_model"]) -> float:
    """Size of the largest number, NaN if one is; in one pass and without a copy."""
    if not values.numel():
        return 0.0
    low, high = values.aminmax()
    return max(-float(low), float(high))
