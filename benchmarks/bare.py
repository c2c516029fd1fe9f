"""The unit of time: a forward pass that does nothing but what cannot be left out.

The same number of tokens as the prompts have, cut into rows of one length, so that no token is
padding and no mask is made; embedding, rotary angles, and transformers' own blocks one after the
other. No head, no final norm, no cache, no hooks, nothing kept. The rows' length is the mean
length of the prompts weighted by their tokens, Σn²/Σn, so that attention costs what it costs on
the prompts one at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.prompts import Prompt


def rows(prompts: Sequence[Prompt], batch_tokens: int) -> list[Tensor]:
    """The prompts' tokens as batches without padding, [row, token] each.

    Args:
        prompts: whose tokens to take, laid end to end.
        batch_tokens: of a batch at most.
    """
    lengths = [len(prompt) for prompt in prompts]
    stream = torch.tensor([token for prompt in prompts for token in prompt.ids])
    length = round(sum(n * n for n in lengths) / sum(lengths))
    whole = len(stream) // length
    full = stream[: whole * length].view(whole, length)
    batches = list(torch.split(full, max(1, batch_tokens // length))) if whole else []
    rest = stream[whole * length :]
    return [*batches, rest[None]] if len(rest) else batches


@torch.no_grad()
def forward(network: Any, batches: Sequence[Tensor]) -> None:
    """Run all batches through the blocks of a Llama of transformers."""
    trunk = network.model
    for ids in batches:
        resid = trunk.embed_tokens(ids.to(network.device))
        positions = torch.arange(ids.shape[1], device=resid.device)[None]
        rotary = trunk.rotary_emb(resid, positions)
        for block in trunk.layers:
            out = block(resid, attention_mask=None, position_embeddings=rotary)
            resid = out[0] if isinstance(out, tuple) else out  # A tuple in old transformers.


def block_flops(network: Any) -> int:
    """Floating-point operations of the blocks' matrix products for one token, without attention."""
    weights = (w for block in network.model.layers for w in block.parameters() if w.ndim == 2)
    return int(2 * sum(w.numel() for w in weights))


@torch.no_grad()
def ceiling(network: Any, tokens: int, watch: Callable[[Callable[[], Any]], float]) -> float:
    """Operations per second of one large matrix product: the best that this machine could do.

    Args:
        network: whose device, precision and widest matrix are taken.
        tokens: rows of the product.
        watch: takes the time of a call.
    """
    weight = network.model.layers[0].mlp.up_proj.weight
    rows = torch.ones(tokens, weight.shape[1], dtype=weight.dtype, device=weight.device)

    def product() -> None:
        for _ in range(8):
            torch.nn.functional.linear(rows, weight)

    product()
    seconds = min(watch(product) for _ in range(5))
    return float(8 * 2 * tokens * weight.numel() / seconds)
