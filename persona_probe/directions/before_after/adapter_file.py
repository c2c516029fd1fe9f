"""The factors of a LoRA adapter, from its safetensors file and its configuration alone."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.files import read_json, read_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OUTPUTS = (
    *("o_proj", "out_proj", "wo", "dense", "c_proj"),  # of attention
    *("down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2"),  # of the MLP
)
VALUES = ("v_proj",)
FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<name>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight")
LAYER = re.compile(r"\.(?:layers|layer|h|blocks)\.(\d+)\.")
ATTENTION_OUTPUT = re.compile(
    r"attn.*\.(?:o_proj|out_proj|dense|wo)\.weight|attention\.dense\.weight"
)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A change of one matrix, B A, the scale included."""

    b: Float[Tensor, "out rank"]
    a: Float[Tensor, "rank in"]

    def minus(self, other: "LowRank") -> "LowRank":
        """This change without another of the same matrix; ranks add up, nothing is truncated.

        Raises:
            SiteMismatchError: the two change matrices of different shapes.
        """
        mine, theirs = ((x.b.shape[0], x.a.shape[1]) for x in (self, other))
        if mine != theirs:
            raise SiteMismatchError(
                f"the adapters change matrices of {mine[0]} x {mine[1]} and {theirs[0]} x "
                f"{theirs[1]}; they belong to different models"
            )
        return LowRank(torch.cat([self.b, -other.b], dim=1), torch.cat([self.a, other.a]))

    def negated(self) -> "LowRank":
        """The opposite change."""
        return LowRank(-self.b, self.a)


@dataclass(frozen=True, eq=False)
class Adapter:
    """What a LoRA adapter changes.

    Attributes:
        folder: where it was read.
        factors: by the name of the module that is changed.
        left_out: whatever else the adapter holds, which is not a plain low-rank change.
    """

    folder: Path
    factors: Mapping[str, LowRank]
    left_out: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> "Adapter":
        """Read an adapter as peft saves it.

        Raises:
            RequestError: a file is missing or damaged, the adapter is not a plain LoRA, or one of
                its factors has no partner or does not fit it.
        """
        config = read_json(folder / CONFIG)
        tensors, _ = read_tensors(folder / WEIGHTS)
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise RequestError(f"{folder / CONFIG} does not describe a LoRA adapter")
        if config.get("use_dora"):
            raise RequestError(
                f"{folder} is a DoRA adapter, which also rescales the weights it is added to; "
                "only plain LoRA is supported"
            )
        sides: dict[str, dict[str, Tensor]] = {}
        other = []
        for key, tensor in tensors.items():
            match = FACTOR.fullmatch(key)
            if match is None or tensor.ndim != 2:
                other.append(key)
            else:
                sides.setdefault(match["name"], {})[match["side"]] = tensor.double()
        if not sides:
            raise RequestError(f"{folder / WEIGHTS} holds no LoRA factors (lora_A, lora_B)")
        factors = {name: _product(folder, name, of, config) for name, of in sides.items()}
        return cls(folder, factors, tuple(sorted(other)))


@dataclass(frozen=True, eq=False)
class OutputWeights:
    """Attention output projections of a model, through which values are written.

    Attributes:
        by_layer: weights.
        value_heads: heads of the value projection; several query heads may share one.
    """

    by_layer: Mapping[int, Float[Tensor, "d_model head"]] = field(default_factory=dict)
    value_heads: int = 1

    @classmethod
    def open(cls, folder: Path) -> "OutputWeights":
        """Read them from a model folder.

        Raises:
            RequestError: there is no configuration, or no attention output projection.
        """
        from safetensors import safe_open

        config = read_json(folder / "config.json")
        found = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as handle:
                for key in handle.offset_keys():
                    layer = LAYER.search(f".{key}")
                    if layer and ATTENTION_OUTPUT.search(key):
                        found[int(layer[1])] = handle.get_tensor(key).double()
        if not found:
            raise RequestError(f"{folder} holds no attention output projections that are known")
        heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or 1
        return cls(found, int(heads))

    def carry(self, layer: int, change: LowRank) -> LowRank:
        """A changed value projection as the output projection writes it: O B A.

        Every query head that shares a value head carries its change.

        Raises:
            SiteMismatchError: the widths do not fit together.
        """
        output = self.by_layer[layer]
        wide, narrow = output.shape[1], change.b.shape[0]
        if wide % narrow or narrow % self.value_heads:
            raise SiteMismatchError(
                f"a value projection of width {narrow} does not fit an output projection of "
                f"{wide} with {self.value_heads} value heads; give the model that the adapter is of"
            )
        by_head = change.b.reshape(self.value_heads, narrow // self.value_heads, -1)
        repeated = by_head.repeat_interleave(wide // narrow, dim=0)
        return LowRank(output @ repeated.reshape(wide, -1), change.a)


def role(name: str) -> tuple[int, str]:
    """Layer of a module, and whether it is an "output", a "value" or "other" to the residual."""
    layer = LAYER.search(f".{name}.")
    kind = name.rpartition(".")[2]
    if layer is None:
        return -1, "other"
    return int(layer[1]), ("output" if kind in OUTPUTS else "value" if kind in VALUES else "other")


def _product(folder: Path, name: str, sides: Mapping[str, Tensor], config: Any) -> LowRank:
    if set(sides) != {"A", "B"} or sides["A"].shape[0] != sides["B"].shape[1]:
        raise RequestError(f"{folder / WEIGHTS}: the factors of {name} do not belong together")
    if not all(torch.isfinite(tensor).all() for tensor in sides.values()):
        raise RequestError(f"{folder / WEIGHTS}: the factors of {name} hold NaN or infinity")
    rank = sides["A"].shape[0]
    alpha = _of_pattern(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRank(sides["B"] * scale, sides["A"])


def _of_pattern(
    patterns: Mapping[str, float | int], name: str, default: float | int
) -> float | int:
    """The value of the first pattern that the end of a module's name matches, as peft does it."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return default
