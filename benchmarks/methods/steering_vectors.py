"""steering-vectors: record every block's output, then pool."""

import torch
from torch import Tensor

from benchmarks.methods import Batch, InOrder


def prepare(folder: str, device: str, dtype: str) -> InOrder:
    """Load the model with transformers."""
    from steering_vectors import record_activations
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval()

    def read(batch: Batch) -> Tensor:
        with record_activations(model, layer_type="decoder_block") as recorded:
            model(input_ids=batch.ids, attention_mask=batch.mask)
        return torch.stack([batch.pooled(recorded[layer][0]) for layer in sorted(recorded)], dim=2)

    return InOrder(read, device)
