"""Means over groups of tokens, taken from a residual stream while it is at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.positions import Group


@dataclass(frozen=True)
class Pooling:
    """Which tokens of a batch go into which row.

    Attributes:
        tokens: the places of the batch that any row needs, flattened over its sequences.
        members: per row, one after the other, indices into `tokens`.
        offsets: where each row's members begin.
    """

    tokens: Int[Tensor, " needed"]
    members: Int[Tensor, " member"]
    offsets: Int[Tensor, " row"]

    @classmethod
    def of(cls, groups: Sequence[Group], starts: Sequence[int]) -> "Pooling":
        """Rows from groups of tokens.

        Args:
            groups: one per row, in tokens of the row's own sequence.
            starts: per row, the place of its sequence's first token in the flattened batch.
        """
        places = [
            np.concatenate([np.arange(start + part.start, start + part.stop) for part in group])
            for group, start in zip(groups, starts, strict=True)
        ]
        tokens, members = np.unique(np.concatenate(places), return_inverse=True)
        offsets = [0, *accumulate(map(len, places))][:-1]
        return cls(torch.from_numpy(tokens), torch.from_numpy(members), torch.tensor(offsets))

    def to(self, device: torch.device) -> "Pooling":
        """The same on another device."""
        return Pooling(self.tokens.to(device), self.members.to(device), self.offsets.to(device))

    def __call__(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "row d_model"]:
        """Means in float32: in bfloat16 they lose the direction being sought.

        Only the tokens that some row needs are converted. Sums are taken in a fixed order, so the
        same batch gives the same bytes.
        """
        needed = resid.flatten(0, 1).index_select(0, self.tokens).float()
        return torch.nn.functional.embedding_bag(self.members, needed, self.offsets, mode="mean")
