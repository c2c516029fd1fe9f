"""TransformerLens hook points on a transformers model that keeps its own speed.

The full TransformerBridge re-implements attention, which costs 1.3 to 4 times the time. A lean
one wraps the blocks and nothing inside them: transformers' attention stays, and the residual
stream after every block still passes through `blocks.{l}.hook_out`. This is the only module that
touches TransformerLens; its builder is not public there, and `check_wiring` guards what it does.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from persona_probe.errors import PersonaProbeError
from persona_probe.models.plain_hooks import plain_bridge

KEPT = ("embed", "pos_embed", "blocks", "ln_final", "unembed")
ALIASES = {"hook_resid_pre": "hook_in", "hook_resid_post": "hook_out"}


def lean_bridge(network: Any, tokenizer: Any, name: str) -> Any:
    """Wrap a transformers model in place; returns its `TransformerBridge`.

    Args:
        network: a causal language model of transformers.
        tokenizer: left as it is; the bridge changes the copy that it gets.
        name: what the bridge calls the model.

    An architecture that TransformerLens has no adapter for gets hook points without it.

    Raises:
        RequestError: the model's blocks cannot be found.
    """
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    attention = network.config._attn_implementation
    architecture = type(network).__name__
    try:
        bridge = build_bridge_from_module(
            network,
            architecture,
            hf_config=network.config,
            tokenizer=copy.deepcopy(tokenizer),
            model_name=name,
            post_adapter_hook=_keep_blocks_whole,
        )
    except ValueError:
        return plain_bridge(network)
    # Building the bridge may have switched to eager attention, for the hooks that we left out.
    network.set_attn_implementation(attention)
    return bridge.eval()


def _keep_blocks_whole(adapter: Any) -> None:
    mapping = adapter.component_mapping
    adapter.component_mapping = {key: mapping[key] for key in KEPT if key in mapping}
    blocks = adapter.component_mapping["blocks"]
    blocks.submodules.clear()
    blocks.hook_aliases = dict(ALIASES)


@contextmanager
def unwrapped(network: nn.Module) -> Iterator[None]:
    """Take the wrapping off while the block runs, so that modules have their own names again.

    Adapters address modules by name. Whatever replaced a wrapped module meanwhile is wrapped
    afterwards.
    """
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    places = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, GeneralizedComponent)
    ]
    for parent, name, wrapper in places:
        parent._modules[name] = wrapper.original_component
    try:
        yield
    finally:
        for parent, name, wrapper in places:
            wrapper.set_original_component(parent._modules[name])
            parent._modules[name] = wrapper


def check_wiring(network: Any, hook_points: Sequence[nn.Module], d_model: int) -> None:
    """Assert on two tokens that the hook points are where they claim to be.

    Every block's must fire once, in order, with the residual's shape, and what a hook returns must
    reach the logits. Two forward passes: milliseconds for a small model.

    Raises:
        PersonaProbeError: they are not, so no result could be trusted.
    """
    seen: list[tuple[int, tuple[int, ...]]] = []
    ids = torch.tensor([[0, 1]], device=next(network.parameters()).device)

    def record(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, resid: torch.Tensor) -> None:
            seen.append((layer, tuple(resid.shape)))

        return hook

    def disturb(_module: nn.Module, _inputs: Any, resid: torch.Tensor) -> torch.Tensor:
        return resid.flip(-1) + 1

    handles = [p.register_forward_hook(record(layer)) for layer, p in enumerate(hook_points)]
    try:
        with torch.no_grad():
            plain = network(input_ids=ids, use_cache=False).logits
            handles.append(hook_points[-1].register_forward_hook(disturb))
            disturbed = network(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    expected = [(layer, (1, 2, d_model)) for layer in range(len(hook_points))]
    if seen != expected * 2 or torch.equal(plain, disturbed):
        raise PersonaProbeError(
            f"the hook points of {type(network).__name__} are not its residual stream "
            f"(saw {seen[: len(expected)]}); this architecture cannot be read"
        )
