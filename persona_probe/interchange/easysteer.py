"""GGUF files of EasySteer, which steers vLLM."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.gguf_file import ARCHITECTURE, HINT, read_gguf, write_gguf
from persona_probe.models.site import Site

METHOD = f"{ARCHITECTURE}.method"


@dataclass(frozen=True)
class EasySteer:
    """`direction.N` with N from 0, and the name of the method that found it.

    Survive: unit, site, block 0 too, finder (as `controlvector.method`); the gap where the strength
    is 1 gap, else the length of what was written. Lost: everything else.
    """

    name: ClassVar[str] = "easysteer"
    suffix: ClassVar[str] = ".gguf"
    convention: ClassVar[str] = "direction.N is the output of 0-based block N, block 0 included."

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        held = read_gguf(path, (ARCHITECTURE, "steervector"))
        finder = held.texts.get(METHOD)
        return [
            Found(Site(number), vector, finder=finder) for number, vector in held.vectors.items()
        ]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        first = additions.directions[additions.sites[0]]
        hint = additions.shape.model_type if additions.shape else first.provenance.model
        texts = {HINT: hint or "unknown", METHOD: first.finder}
        numbered = {site.layer: vector for site, vector in additions.vectors().items()}
        return [write_gguf(path, numbered, texts)]
