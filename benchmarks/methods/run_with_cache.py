"""TransformerLens: a cache with nothing but the residual stream after every block in it."""

import torch
from torch import Tensor

from benchmarks.methods import Batch, InOrder


def prepare(folder: str, device: str, dtype: str) -> InOrder:
    """Load the full bridge."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(folder, device=device, dtype=getattr(torch, dtype))
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(len(bridge.blocks))]

    def read(batch: Batch) -> Tensor:
        _, cache = bridge.run_with_cache(
            batch.ids,
            attention_mask=batch.mask,
            names_filter=names,
            return_type=None,
            output_attentions=False,
        )
        return torch.stack([batch.pooled(cache[name]) for name in names], dim=2)

    return InOrder(read, device)
