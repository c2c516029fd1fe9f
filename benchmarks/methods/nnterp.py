"""nnterp: as nnsight, under its own names for the blocks."""

import torch
from torch import Tensor

from benchmarks.methods import Batch, InOrder


def prepare(folder: str, device: str, dtype: str) -> InOrder:
    """Load, with nnterp's own check of the names."""
    import nnsight
    from nnterp import StandardizedTransformer

    model = StandardizedTransformer(folder, dtype=getattr(torch, dtype), device_map=device)

    def read(batch: Batch) -> Tensor:
        with model.trace({"input_ids": batch.ids, "attention_mask": batch.mask}) as tracer:
            sites = nnsight.save([])
            for layer in range(model.num_layers):
                sites.append(batch.pooled(model.layers_output[layer]))
            tracer.stop()
        return torch.stack(list(sites), dim=2)

    return InOrder(read, device)
