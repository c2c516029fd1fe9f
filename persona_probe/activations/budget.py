"""How many tokens go through the model at once."""

import torch

from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import note

ON_CPU = 1024
"""Larger batches leave a CPU's caches: 2,048 tokens cost 3% more, 4,096 7% (47 M parameters)."""
MOST, LEAST = 65536, 256
PROBE = 512
SHARE = 0.5
"""Of the free memory of an accelerator; the rest is for fragments and for whoever else is there."""


class Budget:
    """Tokens per batch, halved when memory runs out.

    Attributes:
        tokens: of a batch at most; a longer sequence has a batch of its own.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    @classmethod
    def of(cls, model: ResidualModel) -> "Budget":
        """By the device: a fixed number on a CPU, what fits into free memory on an accelerator."""
        if model.device.type != "cuda":
            return cls(ON_CPU)
        return cls(_fitting(model))

    def halve(self, reached: int) -> None:
        """Go on with half of the tokens of the batch that did not fit."""
        self.tokens = max(reached // 2, 1)
        note(f"out of memory at {reached} tokens; going on with batches of {self.tokens}")


def _fitting(model: ResidualModel) -> int:
    """A power of two of tokens, by the memory that one short forward pass takes."""
    device = model.device
    probe = model.pad([[model.pad_id] * PROBE], "right")
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    model.residual_forward(
        probe.ids, probe.attention_mask, probe.position_ids, last_site=model.sites[-1]
    )
    torch.cuda.synchronize(device)
    per_token = max(torch.cuda.max_memory_allocated(device) - before, 1) / PROBE
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(SHARE * free / per_token)
    return min(MOST, max(LEAST, 1 << max(fitting, 1).bit_length() - 1))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
