"""TransformerBridge: its own `generate` inside its own hooks, one configuration at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.steerers import Configuration, Ids, Replies, padded


class Bridged:
    """A hook at `blocks.{l}.hook_resid_post`."""

    def __init__(self, bridge: Any, device: str) -> None:
        self._bridge, self._device = bridge, device

    @torch.no_grad()
    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,  # noqa: ARG002  every call, every position
        n_new: int,
        batch: int,
    ) -> Replies:
        replies = []
        for c in configurations:
            added = c.vector.to(self._device, self._bridge.cfg.dtype)

            def edit(resid: Tensor, hook: Any, added: Tensor = added) -> Tensor:  # noqa: ARG001
                return resid + added

            with self._bridge.hooks(fwd_hooks=[(f"blocks.{c.layer}.hook_resid_post", edit)]):
                replies.append(self._replies(prompts, n_new, batch))
        return replies

    def _replies(self, prompts: Sequence[Ids], n_new: int, batch: int) -> list[Ids]:
        found: list[Ids] = []
        for start in range(0, len(prompts), batch):
            ids, mask = padded(prompts[start : start + batch], self._device)
            whole = self._bridge.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=n_new,
                do_sample=False,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
            found += whole[:, ids.shape[1] :].tolist()
        return found


def prepare(folder: str, device: str, dtype: str) -> Bridged:
    """Load the model as TransformerLens does."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(folder, device=device, dtype=getattr(torch, dtype))
    bridge.tokenizer.padding_side = "left"
    return Bridged(bridge, device)
