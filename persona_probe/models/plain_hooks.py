"""Hook points for models that TransformerLens has no adapter for: fed by the blocks themselves.

Any decoder-only transformers model keeps its blocks in one list, as long as it is deep; what a
block returns is the residual stream. `check_wiring` makes sure of that, as for every model.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from persona_probe.errors import RequestError


class _Point(nn.Module):
    """Passes the residual stream through, for hooks."""

    def forward(self, resid: Tensor) -> Tensor:
        return resid


@dataclass(frozen=True)
class PlainBlock:
    """One block's place in the residual stream, under TransformerLens' names.

    Attributes:
        hook_out: what the block returns passes through it.
        original_component: the block.
    """

    hook_out: nn.Module
    original_component: nn.Module


@dataclass(frozen=True)
class PlainShape:
    """What is asked of a model's configuration."""

    d_model: int


@dataclass(frozen=True)
class PlainBridge:
    """What `ResidualModel` needs of a `TransformerBridge`."""

    blocks: tuple[PlainBlock, ...]
    cfg: PlainShape


def plain_bridge(network: Any) -> PlainBridge:
    """Let every block of a transformers model pass its output through a hook point.

    Raises:
        RequestError: the model has no list of blocks as long as it is deep.
    """
    config = network.config.get_text_config()
    depth = config.num_hidden_layers
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        raise RequestError(
            f"{type(network).__name__} keeps no list of its {depth} blocks, and TransformerLens "
            "does not know it; it cannot be read"
        )
    return PlainBridge(tuple(map(_fed, lists[0])), PlainShape(config.hidden_size))


def _fed(block: nn.Module) -> PlainBlock:
    """A hook point that gets what a block returns, and gives what the next block reads."""
    point = _Point()

    def feed(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (point(output[0]), *output[1:])
        return point(output)

    block.register_forward_hook(feed)
    return PlainBlock(point, block)
