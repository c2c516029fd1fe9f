"""Rows of different length as one rectangular batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids with what a model needs to ignore the padding.

    Attributes:
        ids: token ids; padding holds the pad id, which is never attended to.
        attention_mask: 1 on tokens, 0 on padding.
        position_ids: 0 at each row's first token. Models with absolute positions are wrong
            without them under left padding.
    """

    ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"]


def pad(
    rows: Sequence[Sequence[int]],
    side: Literal["left", "right"],
    pad_id: int,
    device: torch.device | str = "cpu",
) -> PaddedBatch:
    """Pad rows to the longest: on the right to read states, on the left to go on generating."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(len(row))
        ids[index, place] = torch.tensor(list(row), dtype=torch.long)
        mask[index, place] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return PaddedBatch(ids.to(device), mask.to(device), positions.to(device))
