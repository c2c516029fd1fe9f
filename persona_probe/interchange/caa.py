"""Vectors of contrastive activation addition (Rimsky et al. 2023, arXiv:2312.06681)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.torch_file import read_torch, tensor_of
from persona_probe.models.site import Site


@dataclass(frozen=True)
class ContrastiveAddition:
    """`vec_layer_{L}_{model}.pt` [d_model], one file or a behaviour's folder of them; import only.

    The block stands in the file name and nowhere else; pass --layer for a file of another name.
    Vectors under `normalized_vectors` were brought to one length, so their gap means nothing.

    Survive: unit, gap, site. Lost: everything else.
    """

    name: ClassVar[str] = "caa"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "Layer L of the file name is the output of 0-based block L."

    def read(self, path: Path, asked: Asked) -> list[Found]:
        if not path.is_dir():
            told = _layer(path)
            return [_found(path, asked.layer_for(path, told))]
        named = {file: _layer(file) for file in sorted(path.iterdir())}
        layers = {file: layer for file, layer in named.items() if layer is not None}
        if not layers:
            raise RequestError(f"{path} holds no vectors: no vec_layer_<layer>_<model>.pt in it")
        if len(set(layers.values())) < len(layers):
            raise RequestError(
                f"{path} holds several vectors of one layer, of different models; name one file"
            )
        return [_found(file, layer) for file, layer in layers.items()]


def _layer(path: Path) -> int | None:
    match = re.fullmatch(r"vec_layer_(\d+)(_.*)?\.pt", path.name)
    return int(match[1]) if match else None


def _found(path: Path, layer: int) -> Found:
    vector = tensor_of(read_torch(path), path, n_axes=1)
    return Found(Site(layer), vector, finder="mean_difference")
