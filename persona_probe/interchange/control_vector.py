"""GGUF control vectors, as llama.cpp, repeng and saklas read and write them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.gguf_file import HINT, read_gguf, write_gguf
from persona_probe.models.site import Site


@dataclass(frozen=True)
class ControlVector:
    """`direction.N`, float32, one axis; added to the residual after block N at every position.

    Survive: unit, site; the gap where the strength is 1 gap, else the length of what was written.
    The persona, the finder, the contrast and the model stand in `general.description` as prose.
    Lost: midpoint, residual norm, positions (every position is steered), split, labels.

    llama.cpp keeps no room for block 0 and rejects a whole file that has `direction.0`, a tensor of
    another name, or another type than float32; so do we.
    """

    name: ClassVar[str] = "gguf"
    suffix: ClassVar[str] = ".gguf"
    convention: ClassVar[str] = (
        "direction.N is the output of 0-based block N; block 0 cannot be expressed."
    )

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        vectors = read_gguf(path).vectors
        if 0 in vectors:
            raise RequestError(
                f"{path} holds 'direction.0', for which llama.cpp rejects the file; if EasySteer "
                "wrote it, read it with --format easysteer"
            )
        return [Found(Site(number), vector) for number, vector in vectors.items()]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        if additions.sites[0] == Site(0):
            raise RequestError(
                "a GGUF control vector cannot express block 0: llama.cpp keeps room from block 1 "
                "on and rejects a file with 'direction.0'; leave layer 0 out"
            )
        first = additions.directions[additions.sites[0]]
        hint = additions.shape.model_type if additions.shape else first.provenance.model
        texts = {
            HINT: hint or "unknown",
            "general.name": additions.persona,
            "general.description": additions.sentence(),
        }
        numbered = {site.layer: vector for site, vector in additions.vectors().items()}
        return [write_gguf(path, numbered, texts)]
