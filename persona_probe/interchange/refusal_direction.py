"""Directions of `refusal_direction` (Arditi et al. 2024, arXiv:2406.11717)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import read_json
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.rows import require_depth
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of
from persona_probe.models.site import Site

METADATA = "direction_metadata.json"


@dataclass(frozen=True)
class RefusalDirection:
    """`direction.pt` [d_model], or `mean_diffs.pt` [position, L, d_model]; import only.

    Layer L of that code is the *input* of block L, so it is the output of block L - 1, and layer 0
    is the embeddings, which have no site. Where `direction.pt` was found stands in
    `direction_metadata.json` beside it. `mean_diffs.pt` holds every layer at the last few tokens of
    the prompt: --pick one of them (-1 is the last token); the one of the metadata beside it or in
    the folder above is taken when nothing was picked.

    Survive: unit, gap, site, position. Lost: everything else.
    """

    name: ClassVar[str] = "refusal_direction"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = (
        "Layer L is the input of 0-based block L, which is the output of block L - 1."
    )

    def read(self, path: Path, asked: Asked) -> list[Found]:
        held = read_torch(path)
        told = _metadata(path)
        if isinstance(held, Tensor) and held.ndim == 3:
            return _all_layers(path, tensor_of(held, path, n_axes=3), told, asked)
        vector = tensor_of(held, path, n_axes=1)
        layer = asked.layer_for(path, told.get("layer"))
        if layer == 0:
            raise RequestError(
                f"{path} was read at layer 0, which in this format is the embeddings, before any "
                "block; there is no site for it"
            )
        return [_found(layer, vector, told.get("pos"))]


def _all_layers(path: Path, means: Tensor, told: dict[str, Any], asked: Asked) -> list[Found]:
    position = _position(path, len(means), told, asked)
    rows = means[position]
    require_depth(rows, path, asked)
    return [_found(layer, rows[layer], position) for layer in range(1, len(rows))]


def _found(layer: int, vector: Tensor, token: int | None) -> Found:
    """A vector of the format's layer, from 1 on; `token` counts from the prompt's end."""
    position = None if token is None else f"prompt_token:{token}"
    if token == -1:
        position = "last_prompt_token"
    return Found(Site(layer - 1), vector, finder="mean_difference", position=position)


def _position(path: Path, n_positions: int, told: dict[str, Any], asked: Asked) -> int:
    word = str(told.get("pos", "")) if asked.pick is None else asked.pick
    try:
        position = int(word)
    except ValueError:
        position = 0
    if not -n_positions <= position <= -1:
        raise RequestError(
            f"{path} holds {n_positions} token positions, counted from the end of the prompt; "
            f"--pick one of -1 to -{n_positions}" + (f", not {word!r}" if word else "")
        )
    return position


def _metadata(path: Path) -> dict[str, Any]:
    """What stands in the metadata beside the file or in the folder above; empty without any."""
    for folder in (path.parent, path.parent.parent):
        if (folder / METADATA).is_file():
            told = dict_of(read_json(folder / METADATA), folder / METADATA, ["pos", "layer"])
            if not all(isinstance(told[key], int) for key in ("pos", "layer")):
                raise RequestError(f"{folder / METADATA}: 'pos' and 'layer' must be whole numbers")
            return told
    return {}
