"""transformers alone, as its documentation has it: ask for the hidden states, index them."""

import torch
from torch import Tensor

from benchmarks.methods import Batch, InOrder


def prepare(folder: str, device: str, dtype: str) -> InOrder:
    """Load the model with its head."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval()

    def read(batch: Batch) -> Tensor:
        out = model(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
        return torch.stack([batch.pooled(h) for h in out.hidden_states[1:]], dim=2)

    return InOrder(read, device)
