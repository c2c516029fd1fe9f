"""Replies while they grow: one row each, a token at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.steering.arm import Intervention

Key = tuple[int, int, int]

# Rows that leave make the others move in memory, so they leave together.
LEAVE_WHEN_FINISHED = 0.25


@dataclass(frozen=True)
class Row:
    """One reply to be made.

    Attributes:
        key: numbers of the arm, the conversation and the sample.
        prompt: token ids.
        interventions: of the arm.
        stream: name of the row's randomness.
    """

    key: Key
    prompt: tuple[int, ...]
    interventions: tuple[Intervention, ...]
    stream: str


@dataclass(frozen=True)
class Reply:
    """One reply that was made.

    Attributes:
        ids: its tokens, without the end token.
        finished: whether the model ended it itself.
    """

    ids: tuple[int, ...]
    finished: bool


class Replies:
    """The replies of rows that began together, so that all have come equally far."""

    def __init__(
        self, rows: Sequence[Row], room: int, temperature: float, end_ids: Sequence[int]
    ) -> None:
        self._rows = list(rows)
        self._room, self._end_ids = room, frozenset(end_ids)
        self._temperature = temperature
        self._noise = _Noise([row.stream for row in rows]) if temperature > 0 else None
        self._ids: list[list[int]] = [[] for _ in rows]
        self._present = torch.arange(len(rows))
        self._steps = 0
        self.done: dict[Key, Reply] = {}

    def add(self, logits: Float[Tensor, "row vocab"]) -> Int[Tensor, " row"]:
        """Choose the next token of every row that is present, and note it.

        Returns:
            The tokens, on the CPU; those of rows that are done mean nothing.
        """
        if self._noise is not None:
            logits = logits / self._temperature + self._noise.draw(self._present, logits)
        tokens = logits.argmax(dim=-1).cpu()
        self._steps += 1
        for row, token in zip(self._present.tolist(), tokens.tolist(), strict=True):
            if self._rows[row].key in self.done:
                continue
            ended = token in self._end_ids
            if not ended:
                self._ids[row].append(token)
            if ended or self._steps == self._room:
                self.done[self._rows[row].key] = Reply(tuple(self._ids[row]), ended)
        return tokens

    @property
    def going(self) -> Bool[Tensor, " row"]:
        """Which of the rows that are present go on."""
        return torch.tensor([self._rows[r].key not in self.done for r in self._present.tolist()])

    def leaving(self) -> Int[Tensor, " kept"] | None:
        """Let rows that are done leave, if they are many enough.

        Returns:
            Which of the rows that were present stay; `None` if all do.
        """
        going = self.going
        if going.float().mean() > 1 - LEAVE_WHEN_FINISHED:
            return None
        kept: Tensor = going.nonzero(as_tuple=True)[0]
        self._present = self._present[kept]
        return kept


class _Noise:
    """Gumbel noise per row and step: argmax(logits / T + noise) is a sample from the softmax.

    Rows of the same stream, which are the arms of one prompt, get the same noise, so that arms
    part ways only where their distributions do.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self._names = list(dict.fromkeys(streams))
        self._generators = [np.random.Generator(np.random.Philox(_key(n))) for n in self._names]
        place = {name: number for number, name in enumerate(self._names)}
        self._stream_of_row = torch.tensor([place[name] for name in streams])

    def draw(
        self, present: Int[Tensor, " row"], logits: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        """The next step's noise for the rows that are present."""
        # Every stream advances at every step, so a row's noise depends on the step alone.
        exponential = np.stack([g.standard_exponential(logits.shape[1]) for g in self._generators])
        gumbel = torch.from_numpy(-np.log(exponential)).to(logits.device, torch.float32)
        return gumbel[self._stream_of_row[present].to(logits.device)]


def _key(stream: str) -> int:
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "big")
