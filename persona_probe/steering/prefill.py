"""The pass over the prompts, from which both scoring and generation go on."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.padding import PaddedBatch
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.row_edits import RowEdits


def prefill(
    model: ResidualModel,
    edits: RowEdits,
    sequences: Sequence[tuple[int, ...]],
    prompt_lengths: Int[Tensor, " row"],
    share: bool,
) -> tuple[Float[Tensor, "row vocab"], Any, Int[Tensor, "row pos"]]:
    """Run every row's sequence under the edits, which must already be hooked to the model.

    Args:
        model: the model, with the right adapter on.
        edits: of these rows.
        sequences: token ids of each row: the prompt, or the prompt and the beginning of a reply.
        prompt_lengths: number of prompt tokens of each row, on the CPU.
        share: compute what rows have in common once. Only right when no row is edited before its
            last prompt token.

    Returns:
        Logits of the next token, the key-value cache, and the attention mask so far.
    """
    starts = [length - 1 for length in prompt_lengths.tolist()]
    tails = {len(s) - start for s, start in zip(sequences, starts, strict=True)}
    if not share or min(starts) == 0 or len(tails) > 1:
        batch = model.pad(sequences, "left")
        edits.place(token_positions(batch), prompt_lengths)
        logits, cache = model.decode_step(batch.ids, batch.attention_mask, batch.position_ids, None)
        return logits, cache, batch.attention_mask
    heads = [s[:start] for s, start in zip(sequences, starts, strict=True)]
    distinct = {head: number for number, head in enumerate(dict.fromkeys(heads))}
    batch = model.pad(list(distinct), "left")
    edits.rest()
    _, cache = model.decode_step(batch.ids, batch.attention_mask, batch.position_ids, None)
    copies = torch.tensor([distinct[head] for head in heads], device=model.device)
    cache.batch_select_indices(copies)
    tail = torch.tensor([s[start:] for s, start in zip(sequences, starts, strict=True)])
    mask = batch.attention_mask[copies]
    mask = torch.cat([mask, mask.new_ones(tail.shape)], dim=1)
    positions = torch.tensor(starts)[:, None] + torch.arange(tail.shape[1])
    edits.place(positions, prompt_lengths)
    logits, cache = model.decode_step(
        tail.to(model.device), mask, positions.to(model.device), cache
    )
    return logits, cache, mask


def require_room(
    model: ResidualModel, lengths: Sequence[int], names: Sequence[str | None], room: int = 0
) -> None:
    """Raise `RequestError` for a prompt that is empty, or leaves less than `room` tokens."""
    for number, (name, length) in enumerate(zip(names, lengths, strict=True), start=1):
        which = f"number {number}" if name is None else repr(name)
        if length == 0:
            raise RequestError(f"conversation {which} is empty; give it at least one token")
        if model.context_length is not None and length + room > model.context_length:
            raise RequestError(
                f"conversation {which} has {length} tokens and asks for {room} more; "
                f"{model.ref.label} reads {model.context_length} at most"
            )


def token_positions(batch: PaddedBatch) -> Int[Tensor, "row pos"]:
    """Position of each token in its sequence, -1 at padding; on the CPU."""
    return batch.position_ids.masked_fill(batch.attention_mask == 0, -1).cpu()
