"""Does a model give packed sequences what it gives them alone? Tried out, not believed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from persona_probe.models.attention import may_have_own_attention
from persona_probe.models.packing import pack

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel

ROWS = ([3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2], [1, 6, 1, 8, 3])
FULL, HALF = 1e-4, 5e-2
"""Largest difference of a token's residual, as a share of its norm: rounding adds up to about a
tenth of this over many blocks; a sequence that sees its neighbour is off by far more."""


def packs(model: "ResidualModel") -> bool:
    """Whether three short sequences get the same residuals at every site, packed and alone."""
    if not may_have_own_attention(model.network):
        return False
    batch = pack(ROWS, model.device)
    try:
        together = _residuals(model, lambda: model.packed_forward(batch, model.sites[-1]))
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
    tolerance = FULL if model.dtype == torch.float32 else HALF
    for start, row in zip(batch.starts, ROWS, strict=True):
        alone = _alone(model, row)
        for packed, single in zip(together, alone, strict=True):
            gap = (packed[0, start : start + len(row)] - single[0]).norm(dim=-1)
            if not bool((gap <= tolerance * single[0].norm(dim=-1)).all()):
                return False
    return True


def _alone(model: "ResidualModel", row: list[int]) -> list[Tensor]:
    one = model.pad([row], "right")

    def forward() -> None:
        model.residual_forward(
            one.ids, one.attention_mask, one.position_ids, last_site=model.sites[-1]
        )

    return _residuals(model, forward)


def _residuals(model: "ResidualModel", forward: Callable[[], None]) -> list[Tensor]:
    """The residual stream at every site during a forward pass."""
    seen: list[Tensor] = []

    def keep(resid: Tensor) -> None:
        seen.append(resid.float().cpu())

    with model.hooks([(site, keep) for site in model.sites]):
        forward()
    return seen
