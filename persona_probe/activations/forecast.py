"""What an extraction will cost, before it begins: a few batches are read and timed."""

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch

from persona_probe.activations.budget import Budget
from persona_probe.activations.extraction import Wanted, shards_of
from persona_probe.activations.forward import values_of
from persona_probe.activations.reading import Reading
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site

PROBED_TOKENS = 8
"""Batches' worth of tokens that are read to measure the speed."""
PEER_BATCH = 16
"""Rows per batch of tools that batch in the order given; what padding avoided is against."""


@dataclass(frozen=True)
class Forecast:
    """What an extraction will do.

    Attributes:
        conversations: that are read.
        left_out: conversations that are skipped.
        rows: per position.
        tokens: per state of the model, without padding.
        padding_avoided: tokens of padding per true token in batches of 16 in the order given.
        states: of the model.
        shards: per state.
        disk_bytes: of all folders.
        peak_bytes: memory of this process, with the model; of the accelerator on one.
        seconds: expected, from `tokens_per_second`.
        tokens_per_second: measured on some of the conversations.
    """

    conversations: int
    left_out: int
    rows: dict[str, int]
    tokens: int
    padding_avoided: float
    states: int
    shards: int
    disk_bytes: int
    peak_bytes: int
    seconds: float
    tokens_per_second: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rows = ", ".join(f"{n} {position}" for position, n in self.rows.items())
        return (
            f"{self.conversations} conversations ({self.left_out} left out), {self.tokens} tokens, "
            f"read in {self.states} states of the model\n"
            f"rows per state: {rows}, in {self.shards} shards\n"
            f"padding avoided: {self.padding_avoided:.0%} of the tokens, against batches of "
            f"{PEER_BATCH} in the order given\n"
            f"on disk {_size(self.disk_bytes)}, in memory about {_size(self.peak_bytes)}\n"
            f"about {timedelta(seconds=round(self.seconds))} at {self.tokens_per_second:.0f} "
            "tokens per second"
        )


def forecast(
    model: ResidualModel,
    reading: Reading,
    sites: Sequence[Site],
    states: int,
    wanted: Wanted,
    budget: Budget | None = None,
) -> Forecast:
    """Read some of the conversations, and reckon with all of them."""
    budget = budget or Budget.of(model)
    depth = tuple(sorted(set(sites)))
    speed = _speed(model, reading, depth, budget)
    rows = {position: len(found) for position, found in reading.rows.items()}
    shards = shards_of(reading, len(depth), model.d_model, wanted.shard_conversations)
    largest = max(
        sum(len(groups[i]) for groups in reading.groups.values() for i in shard) for shard in shards
    )
    width = {"float32": 4, "float16": 2}[wanted.dtype]
    tokens = sum(reading.lengths)
    of_shard = largest * len(depth) * model.d_model * 4
    return Forecast(
        conversations=len(reading),
        left_out=len(reading.left_out),
        rows=rows,
        tokens=tokens,
        padding_avoided=_padded_in_order(reading.lengths) / tokens - 1,
        states=states,
        shards=len(shards),
        disk_bytes=states * sum(rows.values()) * len(depth) * model.d_model * width
        if wanted.store
        else 0,
        # A shard is held as values, and once more while it is written.
        peak_bytes=_peak(model) + (2 * of_shard if model.device.type == "cpu" else 0),
        seconds=tokens * states / wanted.part[1] / speed,
        tokens_per_second=speed,
    )


def _speed(model: ResidualModel, reading: Reading, sites: Sequence[Site], budget: Budget) -> float:
    """Tokens per second on sequences from all over the reading, after one for warming up."""
    order = sorted(range(len(reading)), key=lambda i: (i * 7919) % len(reading))
    chosen, filled = [], 0
    for i in order:
        if filled > PROBED_TOKENS * budget.tokens:
            break
        chosen.append(i)
        filled += reading.lengths[i]
    probe = reading.of(sorted(chosen))
    values_of(model, probe, range(1), sites, budget, lambda _tokens: None)
    start = time.perf_counter()
    values_of(model, probe, range(len(probe)), sites, budget, lambda _tokens: None)
    return float(filled / (time.perf_counter() - start))


def _padded_in_order(lengths: Sequence[int]) -> int:
    """Tokens and padding of batches in the order given."""
    batches = [lengths[i : i + PEER_BATCH] for i in range(0, len(lengths), PEER_BATCH)]
    return sum(len(batch) * max(batch) for batch in batches)


def _size(n: int | float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def _peak(model: ResidualModel) -> int:
    if model.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(model.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
