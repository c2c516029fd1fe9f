"""Prompts read without padding, then row after row of replies on what was remembered of them.

Three passes through a transformers model that `decodes`: over packed prompts, from a site on where
everything before it is known already, and over one token of each row of several memories.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persona_probe.models.attention import own_attention
from persona_probe.models.memory import Memory, attend_in_turn
from persona_probe.models.packing import KeysAndValues, PackedBatch, pack, packed_attention
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site

Kept = dict[int, KeysAndValues]
Start = tuple[Site, Float[Tensor, "1 token d_model"]]


@torch.no_grad()
def read_prompts(
    model: ResidualModel,
    batch: PackedBatch,
    last_site: Site | None = None,
    start: Start | None = None,
    logits_at: Int[Tensor, " wanted"] | None = None,
) -> tuple[Kept, Float[Tensor, "wanted vocab"] | None]:
    """Run packed prompts through the blocks, and keep their keys and values.

    Hooks get the packed row, [1, token, d_model].

    Args:
        model: that `decodes`.
        batch: the prompts.
        last_site: the last block to run, if the logits are not wanted.
        start: the residual stream at a site, where that is known: no block before it runs.
        logits_at: places in the packed row whose logits are wanted; the last of each prompt's, if
            not given.

    Returns:
        Keys and values of each block that ran; the logits, float32, or `None`.
    """
    kept: Kept = {}
    logits: Tensor | None = None
    ends = torch.tensor(batch.lengths).cumsum(0) - 1 if logits_at is None else logits_at
    with (
        started_after(model, start),
        packed_attention(model.network, batch.lengths, kept),
        model.stopping_at(last_site),
    ):
        output = model.network(
            input_ids=batch.ids,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=ends.to(model.device),
        )
        logits = output.logits[0].float()
    return kept, logits


@torch.no_grad()
def decode(
    model: ResidualModel, ids: Int[Tensor, " row"], memories: Sequence[Memory]
) -> Float[Tensor, "row vocab"]:
    """Read one more token in every row, remember it, and predict the next one.

    Args:
        model: that `decodes`.
        ids: a token for each row of the memories, one memory after the other.
        memories: of the rows.
    """
    positions = torch.cat([memory.positions for memory in memories])
    with own_attention(model.network, partial(attend_in_turn, memories)):
        output = model.network(
            input_ids=ids[:, None].to(model.device),
            position_ids=positions[:, None].to(model.device),
            use_cache=False,
            logits_to_keep=1,
        )
    for memory in memories:
        memory.advance()
    logits: Tensor = output.logits[:, -1]
    return logits.float()


def bytes_per_token(model: ResidualModel) -> int:
    """Memory that the keys and values of one token take, over all blocks."""
    kept, _ = read_prompts(model, pack([[model.pad_id]], model.device), model.sites[-1])
    return sum(x.numel() * x.element_size() for states in kept.values() for x in states)


@contextmanager
def started_after(model: ResidualModel, start: Start | None) -> Iterator[None]:
    """Let forward passes begin with a residual stream that is known, behind the block it is of.

    Hooks at its site get it; those at earlier sites are not called.
    """
    if start is None:
        yield
        return
    site, resid = start
    blocks = model.bridge.blocks
    # Their own dictionaries: TransformerLens' wrapping hands attributes on to what it wraps.
    skipped = [vars(_module(block)) for block in blocks[: site.layer + 1]]
    own = [attributes.get("forward") for attributes in skipped]
    for attributes in skipped[:-1]:
        attributes["forward"] = _passed_on
    skipped[-1]["forward"] = _known(blocks[site.layer], resid)
    try:
        yield
    finally:
        for attributes, forward in zip(skipped, own, strict=True):
            del attributes["forward"]
            if forward is not None:  # Something else had put one there.
                attributes["forward"] = forward


def _module(block: Any) -> nn.Module:
    """What the model calls: TransformerLens' wrapping of a block, or the block."""
    module: nn.Module = block if isinstance(block, nn.Module) else block.original_component
    return module


def _passed_on(resid: Tensor, *_: Any, **__: Any) -> Tensor:
    return resid


def _known(block: Any, resid: Tensor) -> Callable[..., Tensor]:
    # The hook point of a bare block is fed by a hook on it, which runs anyway.
    point: Any = block.hook_out if isinstance(block, nn.Module) else None

    def forward(*_: Any, **__: Any) -> Tensor:
        through: Tensor = resid if point is None else point(resid)
        return through

    return forward
