"""What "layer 7" means, in the one place that says it."""

import re
from dataclasses import dataclass

from persona_probe.errors import RequestError

SYNTAX = "'all', a layer '7', layers '4,8,12', a range '4-8' or a share of the depth '0.2-0.8'"


@dataclass(frozen=True, order=True)
class Site:
    """The residual stream after block `layer`, 0-based, before any final norm.

    transformers' `hidden_states` counts the embeddings as entry 0, so this is its entry
    `layer + 1`, except for the last block, where that entry has already been normalised.
    """

    layer: int

    @property
    def hook_name(self) -> str:
        """TransformerLens' name of this place."""
        return f"blocks.{self.layer}.hook_out"

    def __str__(self) -> str:
        return f"layer {self.layer}"


def parse_sites(text: str, n_layers: int) -> tuple[Site, ...]:
    """Read a choice of sites as it is written on the command line.

    A share of the depth compares with (layer + 1) / n_layers, the share of the blocks that have
    been passed: '0.2-0.8' of ten blocks is layers 1 to 7, and '0-1' written with a decimal point
    ('0.0-1.0') is all of them.

    Args:
        text: one of the forms in `SYNTAX`.
        n_layers: number of blocks of the model.

    Returns:
        The sites in order of depth, each once.

    Raises:
        RequestError: the text has another form, or names layers that the model does not have.
    """
    layers = _layers(text.replace(" ", ""), n_layers)
    if layers is None:
        raise RequestError(f"cannot read sites {text!r}; write {SYNTAX}")
    if not layers:
        raise RequestError(f"sites {text!r} select none of the {n_layers} layers; widen the range")
    beyond = [layer for layer in layers if layer >= n_layers]
    if beyond:
        raise RequestError(
            f"sites {text!r} name layer {beyond[0]}, the model has layers 0 to {n_layers - 1}"
        )
    return tuple(Site(layer) for layer in sorted(set(layers)))


def _layers(text: str, n_layers: int) -> list[int] | None:
    """The layers meant, unchecked; `None` where the text has none of the known forms."""
    if text == "all":
        return list(range(n_layers))
    if re.fullmatch(r"\d+(,\d+)*", text):
        return [int(part) for part in text.split(",")]
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        first, last = map(int, match.groups())
        return list(range(first, last + 1))
    if match := re.fullmatch(r"(\d*\.\d+|\d)-(\d*\.\d+|\d)", text):
        low, high = map(float, match.groups())
        return [layer for layer in range(n_layers) if low <= (layer + 1) / n_layers <= high]
    return None
