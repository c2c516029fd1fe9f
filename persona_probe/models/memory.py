"""Keys and values of rows that are decoded together, with what rows share held once.

The rows of one memory began at the same time, so all have the same number of tokens of their own,
and only prompts of unequal length are padded. Up to the first block whose input steering changes,
the keys and values of a prompt are the same in every row: there one copy serves all its rows, and
the products of their queries with it are one matrix product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from persona_probe.models.packing import KeysAndValues, block_number

ROOM = 32  # tokens; the rows' own keys and values are copied once per this many


@dataclass(frozen=True, eq=False)
class Prompts:
    """Keys and values of prompts at one block, padded on the right."""

    keys: Float[Tensor, "prompt kv_head pos d_head"]
    values: Float[Tensor, "prompt kv_head pos d_value"]

    @classmethod
    def of_packed(cls, packed: KeysAndValues, lengths: Sequence[int], width: int) -> "Prompts":
        """Cut a packed row into its sequences.

        Args:
            packed: keys and values of the row.
            lengths: tokens of each sequence.
            width: positions afterwards, the longest sequence or more.
        """
        keys, values = packed
        rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        columns = torch.cat([torch.arange(length) for length in lengths])
        cells = (rows.to(keys.device), slice(None), columns.to(keys.device))
        cut = []
        for states in (keys, values):
            heads, _, size = states.shape
            padded = states.new_zeros(len(lengths), heads, width, size)
            padded[cells] = states.transpose(0, 1)
            cut.append(padded)
        return cls(*cut)

    @classmethod
    def joined(cls, parts: Sequence["Prompts"]) -> "Prompts":
        """Several as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([p.keys for p in parts]), torch.cat([p.values for p in parts]))

    def chosen(self, prompts: Int[Tensor, " kept"]) -> "Prompts":
        """Some of them."""
        kept = prompts.to(self.keys.device)
        return Prompts(self.keys[kept], self.values[kept])


@dataclass(frozen=True, eq=False)
class Sharing:
    """Which rows read which prompt, as a table of places: one line per prompt.

    Attributes:
        row_at: row in each place; an empty place holds any row, whose result there is not used.
        place_of: each row's place, counted through the table.
    """

    row_at: Int[Tensor, "prompt place"]
    place_of: Int[Tensor, " row"]

    @classmethod
    def of(cls, prompt_of_row: Sequence[int], n_prompts: int, device: torch.device) -> "Sharing":
        rows: list[list[int]] = [[] for _ in range(n_prompts)]
        for row, prompt in enumerate(prompt_of_row):
            rows[prompt].append(row)
        width = max(map(len, rows))
        row_at = torch.tensor([[*some, *[0] * (width - len(some))] for some in rows])
        place_of = torch.empty(len(prompt_of_row), dtype=torch.long)
        for prompt, some in enumerate(rows):
            for place, row in enumerate(some):
                place_of[row] = prompt * width + place
        return cls(row_at.to(device), place_of.to(device))

    def spread(
        self, rows: Float[Tensor, "row head size"], kv_heads: int
    ) -> Float[Tensor, "prompt_and_kv_head place_and_query size"]:
        """Lay rows out so that one batched matrix product per prompt serves all its rows."""
        n, width = self.row_at.shape
        laid = rows[self.row_at.to(rows.device)]
        return (
            laid.view(n, width, kv_heads, -1, rows.shape[-1])
            .transpose(1, 2)
            .reshape(n * kv_heads, -1, rows.shape[-1])
        )

    def gathered(
        self, laid: Float[Tensor, "prompt_and_kv_head place_and_query size"], kv_heads: int
    ) -> Float[Tensor, "row head size"]:
        """Undo `spread`."""
        n, width = self.row_at.shape
        by_place = laid.view(n, kv_heads, width, -1, laid.shape[-1]).transpose(1, 2)
        return by_place.reshape(n * width, -1, laid.shape[-1])[self.place_of.to(laid.device)]


class Memory:
    """What attention remembers of some rows.

    Rows come in order of the block whose output is the first to differ from that of the row's
    bare prompt: at a deeper block, a row has a prompt of its own.
    """

    def __init__(
        self,
        shared: Mapping[int, Prompts],
        private: Mapping[int, Prompts],
        prompt_of_row: Sequence[int],
        changes_after: Sequence[int],
        prompt_lengths: Sequence[int],
    ) -> None:
        """Begin with prompts that have been read.

        Args:
            shared: block → distinct prompts, as they are without any change.
            private: block → one prompt for each row that has one of its own there.
            prompt_of_row: which of the distinct prompts each row has.
            changes_after: block after which each row's prompt differs, in rising order.
            prompt_lengths: tokens of each row's prompt.
        """
        self._shared, self._private = dict(shared), dict(private)
        self._prompt_of_row = list(prompt_of_row)
        self._changes_after = list(changes_after)
        self._lengths = torch.tensor(prompt_lengths)
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._read = 0
        self._forget_tables()

    def __len__(self) -> int:
        return len(self._prompt_of_row)

    @property
    def positions(self) -> Int[Tensor, " row"]:
        """Position of each row's next token."""
        return self._lengths + self._read

    def advance(self) -> None:
        """Count the token that all rows have just read."""
        self._read += 1
        self._masks.clear()

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drop all rows but these."""
        chosen = rows.tolist()
        for block, prompts in self._private.items():
            # Rows are in order of depth, so those with a prompt of their own come first.
            self._private[block] = prompts.chosen(
                rows[: sum(r < len(prompts.keys) for r in chosen)]
            )
        self._own = {
            block: (keys[rows.to(keys.device)], values[rows.to(values.device)])
            for block, (keys, values) in self._own.items()
        }
        self._changes_after = [self._changes_after[r] for r in chosen]
        self._lengths = self._lengths[rows]
        left = [self._prompt_of_row[r] for r in chosen]
        used = sorted(set(left))
        if len(used) < len(set(self._prompt_of_row)):
            self._shared = {
                block: prompts.chosen(torch.tensor(used, dtype=torch.long))
                for block, prompts in self._shared.items()
            }
        number = {prompt: n for n, prompt in enumerate(used)}
        self._prompt_of_row = [number[prompt] for prompt in left]
        self._forget_tables()

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "row head d_head"],
        key: Float[Tensor, "row kv_head d_head"],
        value: Float[Tensor, "row kv_head d_value"],
        settings: Mapping[str, Any],
    ) -> Float[Tensor, "row head d_value"]:
        """Attention of every row's newest token, which is remembered first."""
        block, window = block_number(module), settings.get("sliding_window")
        own_keys, own_values = self._remember(block, key, value, window)
        query = query * (settings.get("scaling") or query.shape[-1] ** -0.5)
        parts = self._prompts_at(block)
        before = torch.cat(
            [_times(query[rows], p.keys.transpose(2, 3), sharing) for rows, p, sharing in parts]
        )
        own = _times(query, own_keys.transpose(2, 3))
        weights = _softmax(before, own, self._unseen(window, before), settings)
        width = before.shape[-1]
        from_prompt = [
            _times(weights[rows, :, :width], p.values, sharing) for rows, p, sharing in parts
        ]
        return torch.cat(from_prompt) + _times(weights[:, :, width:], own_values)

    def _remember(
        self, block: int, key: Tensor, value: Tensor, window: int | None
    ) -> tuple[
        Float[Tensor, "row kv_head token d_head"], Float[Tensor, "row kv_head token d_value"]
    ]:
        """Every row's own keys and values that its newest token sees."""
        if block not in self._own:
            self._own[block] = (_room(key), _room(value))
        kept = []
        for old, new in zip(self._own[block], (key, value), strict=True):
            roomy = old if self._read < old.shape[2] else torch.cat([old, _room(new)], dim=2)
            roomy[:, :, self._read] = new
            kept.append(roomy)
        self._own[block] = (kept[0], kept[1])
        begin = 0 if window is None else max(0, self._read + 1 - window)
        keys, values = (x[:, :, begin : self._read + 1] for x in kept)
        return keys, values

    def _prompts_at(self, block: int) -> list[tuple[slice, Prompts, Sharing | None]]:
        """Rows, the prompts that they read, and how they share them; `None` for one each."""
        parts: list[tuple[slice, Prompts, Sharing | None]] = []
        n_private = sum(depth < block for depth in self._changes_after)
        if n_private:
            parts.append((slice(n_private), self._private[block], None))
        if n_private < len(self):
            if n_private not in self._sharing:
                rest = self._prompt_of_row[n_private:]
                prompts = self._shared[block]
                self._sharing[n_private] = Sharing.of(rest, len(prompts.keys), prompts.keys.device)
            rows = slice(n_private, len(self))
            parts.append((rows, self._shared[block], self._sharing[n_private]))
        return parts

    def _unseen(self, window: int | None, scores: Tensor) -> Bool[Tensor, "row 1 pos"] | None:
        """Places of the prompts that are padding, or too far back; `None` if there are none."""
        if window not in self._masks:
            at = torch.arange(scores.shape[-1])
            unseen = at >= self._lengths[:, None]
            if window is not None:
                unseen |= self.positions[:, None] - at >= window
            seen_all = not bool(unseen.any())
            self._masks[window] = None if seen_all else unseen[:, None].to(scores.device)
        mask = self._masks[window]
        return None if mask is None else mask.to(scores.device)

    def _forget_tables(self) -> None:
        self._sharing: dict[int, Sharing] = {}
        self._masks: dict[int | None, Tensor | None] = {}


def attend_in_turn(
    memories: Sequence[Memory],
    module: nn.Module,
    query: Float[Tensor, "row head 1 d_head"],
    key: Float[Tensor, "row kv_head 1 d_head"],
    value: Float[Tensor, "row kv_head 1 d_value"],
    **settings: Any,
) -> Float[Tensor, "row 1 head d_value"]:
    """Attention of a decoding pass over the rows of several memories, one after the other."""
    parts, start = [], 0
    for memory in memories:
        rows = slice(start, start + len(memory))
        q, k, v = (x[rows, :, 0] for x in (query, key, value))
        parts.append(memory.attend(module, q, k, v, settings))
        start = rows.stop
    return torch.cat(parts)[:, None]


def _times(
    rows: Float[Tensor, "row head inner"],
    matrices: Float[Tensor, "prompt kv_head inner outer"],
    sharing: Sharing | None = None,
) -> Float[Tensor, "row head outer"]:
    """Each row times the matrix of its prompt; without `sharing`, every row has a matrix."""
    kv_heads = matrices.shape[1]
    flat = matrices.flatten(0, 1)
    if sharing is not None:
        return sharing.gathered(torch.bmm(sharing.spread(rows, kv_heads), flat), kv_heads)
    laid = rows.reshape(len(rows) * kv_heads, -1, rows.shape[-1])
    return torch.bmm(laid, flat).view(*rows.shape[:2], -1)


def _softmax(
    before: Float[Tensor, "row head pos"],
    own: Float[Tensor, "row head token"],
    unseen: Bool[Tensor, "row 1 pos"] | None,
    settings: Mapping[str, Any],
) -> Float[Tensor, "row head pos_and_token"]:
    """Weights of the prompt's tokens and of the row's own; a token's own is always among them."""
    scores = torch.cat([before, own], dim=-1).float()
    if (cap := settings.get("softcap")) is not None:
        scores = torch.tanh(scores / cap) * cap
    if unseen is not None:
        scores[:, :, : before.shape[-1]].masked_fill_(unseen, -torch.inf)
    if (sinks := settings.get("s_aux")) is not None:
        # Attention sinks take a share of the weight and give no value.
        sink = sinks.float().view(1, -1, 1).expand(len(scores), -1, 1)
        return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1].to(own.dtype)
    return scores.softmax(dim=-1).to(own.dtype)


def _room(new: Float[Tensor, "row kv_head size"]) -> Float[Tensor, "row kv_head token size"]:
    rows, heads, size = new.shape
    return new.new_empty(rows, heads, ROOM, size)
