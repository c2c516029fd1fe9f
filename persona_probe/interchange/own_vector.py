"""Our own steering vector files: those of a study, of the playground, and of `artifacts/sample`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import read_tensors
from persona_probe.interchange.format import Asked, Found
from persona_probe.models.site import Site

KEY = "persona_probe"
FORMAT = "persona_probe.steering_vector/1"


@dataclass(frozen=True)
class OwnVector:
    """One tensor `vector` [d_model], strength baked in, and JSON about it; import only.

    Studies and the playground write it (see `artifacts/README.md`); a strength of 1 gap is what
    the file adds.

    Survive: unit, gap (times the strength), norm (of a strength in norms), site, finder, name.
    Lost: midpoint, and where the activations were read; the file says where the vector is added
    instead.
    """

    name: ClassVar[str] = KEY
    suffix: ClassVar[str] = ".safetensors"
    convention: ClassVar[str] = "Layer L is the output of 0-based block L."

    def read(self, path: Path, asked: Asked) -> list[Found]:
        vector, told = read_steering_vector(path)
        layer = told.get("layer")
        if not isinstance(layer, int) or layer < 0:
            raise RequestError(f"{path}: its layer is {layer!r}, expected a block from 0 on")
        site = Site(asked.layer_for(path, layer))
        finder, position = told.get("finder"), told.get("positions")
        return [Found(site, vector, finder=finder, position=position, norm=_norm(told))]


def _norm(told: dict[str, Any]) -> float:
    """The median residual norm: the vector's length is so many of them; else NaN."""
    strength, length = told.get("strength"), told.get("length")
    if told.get("units") != "norm" or not strength or not length:
        return math.nan
    return float(length / strength)


def read_steering_vector(path: Path) -> tuple[Float[Tensor, " d_model"], dict[str, Any]]:
    """Read a steering vector and what is known about it.

    Raises:
        RequestError: the file is missing or holds something else.
    """
    tensors, metadata = read_tensors(path)
    if set(tensors) != {"vector"} or KEY not in metadata:
        raise RequestError(f"{path} is not a steering vector file: it holds {sorted(tensors)}")
    header: dict[str, Any] = json.loads(metadata[KEY])
    return tensors["vector"], header
