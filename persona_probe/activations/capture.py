"""Conversations through a model, and the pooled residual stream out of it.

Pooling happens inside the hooks, so nothing of size batch × tokens × sites × d_model is ever
kept; the forward pass ends after the last site, without logits and without a key-value cache.
"""

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.batches import by_length
from persona_probe.activations.pooling import pool, position_named, span_of, span_weights
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.models.chat import Conversation, Tokens
from persona_probe.models.residual_model import Hook, ResidualModel
from persona_probe.models.site import Site
from persona_probe.progress import progress
from persona_probe.provenance import content_hash

# Tokens per batch. On a CPU, larger ones leave its caches and are 20% slower.
ON_CPU, ON_ACCELERATOR = 2048, 16384


def capture(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    sites: Sequence[Site],
    positions: Sequence[str],
    adapter: str | EllipsisType | None = ...,
    batch_tokens: int | None = None,
    description: str = "capturing",
) -> dict[str, ActivationSet]:
    """Read the residual stream of every conversation at every site.

    Conversations that end with a reply are read as they are; the others with the generation
    prompt behind them, so that their last token is where a reply would begin.

    Args:
        model: left as it was, also after an exception.
        conversations: in any order of lengths; results keep the order given.
        sites: where to read.
        positions: names in `POSITIONS`; all are pooled in the same pass.
        adapter: LoRA adapter to read with; `None` for bare weights. As it is, if not given.
        batch_tokens: largest batch in tokens, padding included. It decides speed and memory, not
            results, which differ by rounding only. By the device, if not given.
        description: shown with the progress bar.

    Returns:
        Position → activations, in float32 on the CPU.

    Raises:
        RequestError: a conversation is longer than the model's context or has nothing at a
            position, or a name is unknown.
        PersonaProbeError: an activation is NaN or infinite.
    """
    chosen = model.active_adapter if isinstance(adapter, EllipsisType) else adapter
    found = capture_adapters(
        model, conversations, sites, positions, [chosen], batch_tokens, description
    )
    return found[chosen]


def capture_adapters(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    sites: Sequence[Site],
    positions: Sequence[str],
    adapters: Sequence[str | None],
    batch_tokens: int | None = None,
    description: str = "capturing",
) -> dict[str | None, dict[str, ActivationSet]]:
    """`capture` before and after finetuning: one load, one tokenisation, several adapters.

    All adapters read the same token ids in the same batches, so that differences between them are
    due to the weights alone.

    Args:
        model: as for `capture`, and so are the arguments not described here.
        conversations: read by every adapter.
        sites: where to read.
        positions: names in `POSITIONS`.
        adapters: LoRA adapters; `None` is the bare weights.
        batch_tokens: largest batch in tokens, padding included.
        description: shown with the progress bar.

    Returns:
        Adapter → position → activations.
    """
    if not (conversations and sites and positions):
        raise RequestError("nothing to capture: give at least one conversation, site and position")
    for position in positions:
        position_named(position)
    names = [c.id if c.id is not None else str(i) for i, c in enumerate(conversations)]
    budget = batch_tokens or (ON_CPU if model.device.type == "cpu" else ON_ACCELERATOR)
    encoded = [model.encode(c, add_generation_prompt=c.reply is None) for c in conversations]
    _require_fit(model, encoded, names)
    spans = [
        [span_of(tokens, position, repr(name)) for position in positions]
        for tokens, name in zip(encoded, names, strict=True)
    ]
    depth = tuple(sorted(set(sites)))
    about: dict[str, Any] = {
        "sites": depth,
        "ids": tuple(names),
        "labels": tuple(c.label or "" for c in conversations),
        "families": tuple(c.family or "" for c in conversations),
        "texts": tuple("\n".join(m.content for m in c.messages) for c in conversations),
    }
    prompts_hash = content_hash([tokens.ids for tokens in encoded])
    results: dict[str | None, dict[str, ActivationSet]] = {}
    work = float(sum(map(len, encoded)) * len(adapters))
    with progress(description, work, "tokens") as advance:
        for adapter in adapters:
            with model.adapter(adapter):
                values = torch.empty(len(positions), len(encoded), len(depth), model.d_model)
                for rows in by_length([len(tokens) for tokens in encoded], budget):
                    ids = [encoded[row].ids for row in rows]
                    values[:, rows] = _read(model, ids, [spans[row] for row in rows], depth)
                    advance(float(sum(map(len, ids))))
                _require_finite(values, names, depth)
                provenance = model.describe(prompts_hash=prompts_hash)
            results[adapter] = {
                position: ActivationSet(
                    values=values[i],
                    position=position,
                    provenance=provenance.with_(positions=position),
                    **about,
                )
                for i, position in enumerate(positions)
            }
    return results


def _read(
    model: ResidualModel,
    ids: Sequence[Sequence[int]],
    spans: Sequence[Sequence[slice]],
    sites: Sequence[Site],
) -> Float[Tensor, "position example site d_model"]:
    """One batch. Padding is on the right, where no token attends to it."""
    batch = model.pad(ids, "right")
    weights = span_weights(spans, batch.ids.shape[1]).to(model.device)
    pooled: dict[Site, Tensor] = {}

    def pooling_at(site: Site) -> Hook:
        def hook(resid: Tensor) -> None:
            pooled[site] = pool(resid, weights)

        return hook

    with model.hooks([(site, pooling_at(site)) for site in sites]):
        model.residual_forward(
            batch.ids, batch.attention_mask, batch.position_ids, last_site=sites[-1]
        )
    return torch.stack([pooled[site] for site in sites]).permute(2, 1, 0, 3).cpu()


def _require_fit(model: ResidualModel, encoded: Sequence[Tokens], names: Sequence[str]) -> None:
    """Refuse conversations longer than the context, by name."""
    limit = model.context_length
    for tokens, name in zip(encoded, names, strict=True):
        if limit is not None and len(tokens) > limit:
            raise RequestError(
                f"conversation {name!r} has {len(tokens)} tokens, the context of "
                f"{model.ref.label} is {limit}; shorten it or leave it out"
            )


def _require_finite(
    values: Float[Tensor, "position example site d_model"],
    names: Sequence[str],
    sites: Sequence[Site],
) -> None:
    """Name the first conversation and site whose activations are not numbers."""
    bad = (~torch.isfinite(values).all(dim=-1)).nonzero()
    if len(bad):
        _, row, column = bad[0].tolist()
        raise PersonaProbeError(
            f"the activations of conversation {names[row]!r} at {sites[column]} are NaN or "
            "infinite; load the model in float32 or bfloat16"
        )
