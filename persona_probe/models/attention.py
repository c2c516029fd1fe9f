"""Attention by a function of our own while a block of code runs.

transformers calls attention by name, through one interface. Under our name it is whatever function
is in force: one for sequences that are packed into a row, one for rows that share their prompts.
Under a name that it does not know transformers makes no mask, so such a function makes its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

NAME = "persona_probe"
PURE = ("sdpa", "eager")
"""Attention functions that are known to be pure functions of their arguments."""

Attention = Callable[..., Tensor]
_attention: ContextVar[Attention] = ContextVar("attention")
_inner: ContextVar[str] = ContextVar("inner")


@contextmanager
def own_attention(network: Any, attention: Attention) -> Iterator[None]:
    """Let a model's blocks call `attention` while the block of code runs; blocks nest.

    Args:
        network: a transformers model that `may_have_own_attention`.
        attention: called with the block's attention module, queries, keys and values
            [batch, head, token, d_head], and the settings by name; gives
            [batch, token, head, d_head].
    """
    from transformers import AttentionInterface

    before = network.config.get_text_config()._attn_implementation
    function = _attention.set(attention)
    inner = None
    if before != NAME:
        AttentionInterface.register(NAME, _call)
        inner = _inner.set(before)
        network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        _attention.reset(function)
        if inner is not None:
            network.set_attn_implementation(before)
            _inner.reset(inner)


def may_have_own_attention(network: Any) -> bool:
    """Whether a model's attention goes through transformers' interface, as a function we know.

    Necessary, not sufficient: state-space layers mix tokens elsewhere. Whoever relies on it
    compares results first.
    """
    settable = bool(network._can_set_attn_implementation())
    return settable and network.config.get_text_config()._attn_implementation in (*PURE, NAME)


def inner_attention() -> str:
    """Name of the function that is in force without ours."""
    return _inner.get()


def _call(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  None: transformers makes none for this name
    **settings: Any,
) -> tuple[Tensor, None]:
    return _attention.get()(module, query, key, value, **settings), None
