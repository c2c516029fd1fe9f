"""nnsight: pooling inside the trace, which is stopped after the last block."""

import torch
from torch import Tensor

from benchmarks.methods import Batch, InOrder


def prepare(folder: str, device: str, dtype: str) -> InOrder:
    """Load and dispatch."""
    import nnsight

    model = nnsight.TransformersModel(
        folder,
        task="text-generation",
        dtype=getattr(torch, dtype),
        device_map=device,
        dispatch=True,
    )
    n_layers = model.config.num_hidden_layers

    def read(batch: Batch) -> Tensor:
        with model.trace({"input_ids": batch.ids, "attention_mask": batch.mask}) as tracer:
            sites = nnsight.save([])
            for layer in range(n_layers):
                sites.append(batch.pooled(model.model.layers[layer].output))
            tracer.stop()
        return torch.stack(list(sites), dim=2)

    return InOrder(read, device)
