"""Padded batches whose rows leave: for models that cannot share prompts between rows."""

from collections.abc import Sequence

import torch

from persona_probe.activations.batches import by_length
from persona_probe.activations.budget import Budget, out_of_memory
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import Advance
from persona_probe.steering.prefill import prefill
from persona_probe.steering.replies import Key, Replies, Reply, Row
from persona_probe.steering.row_edits import RowEdits


def replies_in_lockstep(
    model: ResidualModel,
    rows: Sequence[Row],
    room: int,
    temperature: float,
    budget: Budget,
    advance: Advance,
) -> dict[Key, Reply]:
    """Reply in one batch after the other, through transformers' own cache.

    Arguments as `replies_joining` has them; here a batch holds at most the budget's tokens,
    prompts and replies, and padding counts.
    """
    done: dict[Key, Reply] = {}
    # The two kinds are read in different ways, so they do not share a batch.
    for spared in (False, True):
        some = [r for r in rows if all(i.spares_the_prompt for i in r.interventions) == spared]
        lengths = [len(row.prompt) + room for row in some]
        batches = [[some[i] for i in b] for b in by_length(lengths, budget.tokens)]
        while batches:
            batch = batches.pop(0)
            try:
                found = _replies(model, batch, room, temperature, spared)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(batch) == 1:
                    raise
                found = None
            if found is None:
                budget.halve(sum(len(row.prompt) + room for row in batch))
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
                continue
            done |= found
            advance(len(found))
    return done


def _replies(
    model: ResidualModel, rows: Sequence[Row], room: int, temperature: float, share: bool
) -> dict[Key, Reply]:
    replies = Replies(rows, room, temperature, model.end_ids)
    prompts = [row.prompt for row in rows]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    edits = RowEdits(model, [row.interventions for row in rows], prompts)
    with model.hooks(edits.hooks):
        logits, cache, mask = prefill(model, edits, prompts, lengths, share)
        for step in range(room):
            tokens = replies.add(logits)
            kept = replies.leaving()
            if kept is not None:
                if len(kept) == 0:
                    break
                edits.keep(kept, len(tokens))
                cache.batch_select_indices(kept.to(model.device))
                mask = mask[kept.to(model.device)]
                tokens, lengths = tokens[kept], lengths[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = lengths[:, None] + step
            edits.place(positions, lengths)
            logits, cache = model.decode_step(
                tokens[:, None].to(model.device), mask, positions.to(model.device), cache
            )
    return replies.done
