"""Role vectors of "assistant axis": what the residual is on average in one role."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.rows import along, require_depth
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of
from persona_probe.models.site import Site

DEFAULTS = ("default.pt", "default_vector.pt")


@dataclass(frozen=True)
class AssistantAxisRoles:
    """`{"vector": [L, d_model], "type": "pos_3" | "mean", "role": …}`; import only.

    A role's vector is a mean activation, no contrast: most of it is what all text has in common.
    The direction is its difference to the default assistant's, read from `default.pt` beside it,
    and with both means known the gap and the midpoint are exact. Nothing of ours can be written in
    this format, because a direction does not know the means of its classes.

    Survive: unit, site, gap, midpoint. Lost: the number and the type of the replies averaged.
    """

    name: ClassVar[str] = "assistant_axis_roles"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "Row k of [L, d_model] is the output of 0-based block k."

    def read(self, path: Path, asked: Asked) -> list[Found]:
        role, default = _means(path), _means(_default_of(path))
        if role.shape != default.shape:
            raise RequestError(
                f"{path} has shape {list(role.shape)}, the default assistant's vector beside it "
                f"{list(default.shape)}; they are of different models"
            )
        require_depth(role, path, asked)
        return [
            Found(
                Site(layer),
                role[layer] - default[layer],
                along((role[layer] + default[layer]) / 2, role[layer] - default[layer]),
                finder="mean_difference",
            )
            for layer in range(len(role))
        ]


def _means(path: Path) -> Tensor:
    held = read_torch(path)
    rows = held if isinstance(held, Tensor) else dict_of(held, path, ["vector"])["vector"]
    return tensor_of(rows, path, n_axes=2).double()


def _default_of(path: Path) -> Path:
    if path.name in DEFAULTS:
        raise RequestError(f"{path} is the default assistant itself; name the file of a role")
    for folder in (path.parent, path.parent.parent):
        for name in DEFAULTS:
            if (folder / name).is_file():
                return folder / name
    raise RequestError(
        f"{path} holds a mean activation, which is no direction before the default assistant's is "
        f"taken from it; put {DEFAULTS[0]} of the same pipeline beside it"
    )
