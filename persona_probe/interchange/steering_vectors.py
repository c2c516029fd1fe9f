"""Vectors of the `steering-vectors` package, which has no file format of its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

BLOCK = "decoder_block"


@dataclass
class _Inert:
    """Takes the place of `SteeringVector` in a file; has its fields and none of its code."""

    layer_activations: dict[int, Any] = field(default_factory=dict)
    layer_type: str = BLOCK


ALLOWED = [(_Inert, "steering_vectors.steering_vector.SteeringVector")]


@dataclass(frozen=True)
class SteeringVectors:
    """A dict of 0-based block → vector [d_model], ready for `SteeringVector(dict)`.

    Read are such a dict, `{"layer_activations": …, "layer_type": …}`, and a `SteeringVector` that
    was saved whole with torch.save, in whose place an inert class is put, so that none of the
    package's code runs. Vectors of attention or MLP outputs are refused: they are not of the
    residual stream. Written is the plain dict.

    Survive: unit, site; the gap where the strength is 1 gap. Lost: everything else.
    """

    name: ClassVar[str] = "steering_vectors"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "Key k is the output of 0-based block k."

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        held = read_torch(path, ALLOWED)
        if isinstance(held, _Inert):
            held = vars(held)
        held = dict_of(held, path)
        if "layer_activations" in held:
            if (kind := held.get("layer_type", BLOCK)) != BLOCK:
                raise RequestError(
                    f"{path} holds vectors of {kind!r}, which are not of the residual stream; only "
                    f"{BLOCK!r} can be imported"
                )
            held = dict_of(held["layer_activations"], path)
        return [_found(path, key, vector) for key, vector in held.items()]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        vectors = additions.vectors()
        return [write_torch(path, {site.layer: vector for site, vector in vectors.items()})]


def _found(path: Path, key: Any, vector: Any) -> Found:
    if not isinstance(key, int) or key < 0:
        raise RequestError(f"{path} has the key {key!r}, expected numbers of blocks from 0 on")
    return Found(Site(key), tensor_of(vector, f"{path}, layer {key}", n_axes=1))
