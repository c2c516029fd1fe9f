"""The forward passes of a reading: batches in, rows out.

Pooling happens inside the hooks, so nothing of size batch × tokens × sites × d_model is ever
kept; a pass ends after the last site, without logits and without a key-value cache.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.batches import by_length, end_to_end
from persona_probe.activations.budget import Budget, out_of_memory
from persona_probe.activations.pooling import Pooling
from persona_probe.activations.reading import Reading
from persona_probe.errors import PersonaProbeError
from persona_probe.models.packing import pack
from persona_probe.models.residual_model import Hook, ResidualModel
from persona_probe.models.site import Site


def values_of(
    model: ResidualModel,
    reading: Reading,
    sequences: range,
    sites: Sequence[Site],
    budget: Budget,
    advance: Callable[[int], None],
) -> dict[str, Float[Tensor, "row site d_model"]]:
    """The rows of some sequences at every position, in order, in float32 on the CPU.

    Args:
        model: read as it is, with whatever adapter is on.
        reading: what is to be read.
        sequences: which of its sequences.
        sites: where, ascending.
        budget: tokens per batch; it is halved when memory runs out.
        advance: called with the tokens of every batch that is done.

    Raises:
        PersonaProbeError: an activation is NaN or infinite, or one sequence alone does not fit
            into memory.
    """
    spans = {p: (rows[sequences[0]], rows[sequences[-1] + 1]) for p, rows in _firsts(reading)}
    values = {
        position: torch.empty(last - first, len(sites), model.d_model)
        for position, (first, last) in spans.items()
    }
    left = set(sequences)
    while left:
        for batch in _cut(model, reading, sorted(left), budget.tokens):
            tokens = sum(reading.lengths[i] for i in batch)
            try:
                pooled = _pooled(model, reading, batch, sites)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                _require_several(batch, reading, tokens, error)
                budget.halve(tokens)
                break  # What is left is cut anew.
            done = 0
            for position, rows in _firsts(reading):
                places = [
                    row - spans[position][0] for i in batch for row in range(rows[i], rows[i + 1])
                ]
                values[position][places] = pooled[done : done + len(places)]
                done += len(places)
            left.difference_update(batch)
            advance(tokens)
    for position, found in values.items():
        _require_finite(found, reading, position, spans[position][0], sites)
    return values


def _firsts(reading: Reading) -> list[tuple[str, list[int]]]:
    return list(reading.first_rows.items())


def _cut(
    model: ResidualModel, reading: Reading, sequences: Sequence[int], budget: int
) -> list[list[int]]:
    """Batches without padding where the model packs, with hardly any where it does not."""
    lengths = [reading.lengths[i] for i in sequences]
    batches = (
        end_to_end(lengths, budget, alone_above=model.short_context)
        if model.packs
        else by_length(lengths, budget)
    )
    return [[sequences[i] for i in batch] for batch in batches]


def _pooled(
    model: ResidualModel, reading: Reading, batch: Sequence[int], sites: Sequence[Site]
) -> Float[Tensor, "row site d_model"]:
    """One forward pass: the rows of all positions, one position after the other."""
    ids = [reading.ids[i] for i in batch]
    packed = pack(ids, model.device) if model.packs else None
    padded = None if packed else model.pad([row.tolist() for row in ids], "right")
    starts = packed.starts if packed else [n * max(map(len, ids)) for n in range(len(ids))]
    groups, origins = [], []
    for per_sequence in reading.groups.values():
        for start, i in zip(starts, batch, strict=True):
            groups += per_sequence[i]
            origins += [start] * len(per_sequence[i])
    pooling = Pooling.of(groups, origins)
    rows: dict[Site, Tensor] = {}

    def pooling_at(site: Site) -> Hook:
        def hook(resid: Tensor) -> None:
            rows[site] = pooling.to(resid.device)(resid)

        return hook

    with model.hooks([(site, pooling_at(site)) for site in sites]):
        if packed:
            model.packed_forward(packed, last_site=sites[-1])
        elif padded:
            model.residual_forward(
                padded.ids, padded.attention_mask, padded.position_ids, last_site=sites[-1]
            )
    return torch.stack([rows[site].cpu() for site in sites], dim=1)


def _require_several(
    batch: Sequence[int], reading: Reading, tokens: int, error: BaseException
) -> None:
    if len(batch) == 1:
        name = _name(reading, batch[0])
        raise PersonaProbeError(
            f"conversation {name!r} alone, {tokens} tokens, does not fit into memory; leave it "
            "out, or load the model in bfloat16 or on a larger device"
        ) from error


def _name(reading: Reading, sequence: int) -> str:
    """The id of a sequence's first row."""
    position, rows = _firsts(reading)[0]
    return reading.rows[position][rows[sequence]].id


def _require_finite(
    values: Float[Tensor, "row site d_model"],
    reading: Reading,
    position: str,
    first: int,
    sites: Sequence[Site],
) -> None:
    """Name the first row and site whose activations are not numbers."""
    bad = (~torch.isfinite(values).all(dim=-1)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise PersonaProbeError(
            f"the activations of conversation {reading.rows[position][first + row].id!r} at "
            f"{sites[column]} are NaN or infinite; load the model in float32 or bfloat16"
        )
