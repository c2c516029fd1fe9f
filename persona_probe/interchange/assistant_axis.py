"""The axis of "assistant axis" (Lu et al. 2026, arXiv:2601.10387): a row for every block."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import NOT_A_NUMBER, Asked, Found
from persona_probe.interchange.rows import along, require_depth
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

MEANS = ("default_mean", "role_mean")


@dataclass(frozen=True)
class AssistantAxis:
    """A tensor [L, d_model], bare or under the key `axis`: default minus role-playing.

    Read are all three shapes in circulation: bare, `{"axis", "metadata"}` of the library, and what
    the pipeline writes, `{"axis", "default_mean", "role_mean", …}`. Written is the library's.

    Survive: unit, site; the gap where the strength is 1 gap; the midpoint from a pipeline's file,
    which has the means of both classes. Lost: everything else; what the file is stands in its
    metadata as prose.
    """

    name: ClassVar[str] = "assistant_axis"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "Row k of [L, d_model] is the output of 0-based block k."

    def read(self, path: Path, asked: Asked) -> list[Found]:
        held = read_torch(path)
        rows = held if isinstance(held, Tensor) else dict_of(held, path, ["axis"])["axis"]
        rows = tensor_of(rows, path, n_axes=2)
        require_depth(rows, path, asked)
        centre = _centre(held, path, rows)
        return [
            Found(
                Site(layer),
                row,
                NOT_A_NUMBER if centre is None else along(centre[layer], row),
                finder="mean_difference",
            )
            for layer, row in enumerate(rows)
            if row.any()
        ]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        rows = additions.rows(additions.depth(self.name), first=0)
        metadata = {"persona": additions.persona, "description": additions.sentence()}
        return [write_torch(path, {"axis": rows, "metadata": metadata})]


def _centre(held: Any, path: Path, rows: Tensor) -> Tensor | None:
    """Half-way between the class means at every block, where the file has both."""
    if isinstance(held, Tensor) or not all(key in held for key in MEANS):
        return None
    first, second = (tensor_of(held[key], f"{path}, {key}", n_axes=2).double() for key in MEANS)
    if not first.shape == second.shape == rows.shape:
        raise RequestError(f"{path}: the axis and the means of its classes differ in shape")
    return (first + second) / 2
