"""repeng: what `ControlVector.train` calls to read hidden states. It knows the last token only."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.methods import Values
from benchmarks.prompts import Prompt


class Hiddens:
    """`batched_get_hiddens` of whole conversations."""

    positions: tuple[str, ...] = ("last_token",)

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.layers = list(range(model.config.num_hidden_layers))

    def ready(self, prompts: Sequence[Prompt]) -> list[str]:
        return [prompt.question + prompt.reply for prompt in prompts]

    def run(self, prompts: list[str], batch: int) -> Values:
        from repeng.extract import batched_get_hiddens

        found = batched_get_hiddens(self.model, self.tokenizer, prompts, self.layers, batch)
        sites = [torch.from_numpy(found[layer]) for layer in self.layers]
        return {"last_token": torch.stack(sites, dim=1)}


def prepare(folder: str, device: str, dtype: str) -> Hiddens:
    """Load the model with transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return Hiddens(model.to(device).eval(), AutoTokenizer.from_pretrained(folder))
