"""The bare forward pass as if it were a method, for its memory: it gives nothing back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import bare
from benchmarks.methods import Values
from benchmarks.prompts import Prompt

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}


class BareForward:
    """Blocks only; see `bare.py`."""

    positions: tuple[str, ...] = ()

    def __init__(self, network: Any, batch_tokens: int) -> None:
        self.network, self.batch_tokens = network, batch_tokens

    def ready(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        return bare.rows(prompts, self.batch_tokens)

    def run(self, prompts: list[Tensor], batch: int) -> Values:
        """`batch` is not used: it is a number of tokens here."""
        del batch
        bare.forward(self.network, prompts)
        return {}


def prepare(folder: str, device: str, dtype: str) -> BareForward:
    """Load the model with transformers."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return BareForward(network.to(device).eval(), BATCH_TOKENS[device])
