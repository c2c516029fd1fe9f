"""What a foreign format is: a way to read vectors, and perhaps one to write them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Shaped
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.models.shape import ModelShape
from persona_probe.models.site import Site

NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class Asked:
    """What the caller knows of a foreign file and the file may not say.

    Attributes:
        persona: whose directions they are.
        family: which contrast they are, as `Direction.family`.
        position: the pooling rule of the tokens they were read at; where the file says it, the
            caller's word goes first.
        layer: 0-based block, for formats that do not name it; see `layer_for`.
        pick: which of several things in the file is meant, in the words of its format.
        shape: the model that they must fit.
    """

    persona: str
    family: str = "unknown"
    position: str | None = None
    layer: int | None = None
    pick: str | None = None
    shape: ModelShape | None = None

    def layer_for(self, path: Path, told: int | None = None) -> int:
        """The block that a file without layer numbers inside belongs to.

        Args:
            path: the file, for the message.
            told: what its name or a file beside it says.

        Raises:
            RequestError: nobody says, or the caller says otherwise.
        """
        if told is not None and self.layer not in (None, told):
            raise RequestError(
                f"{path} says that it belongs to layer {told} and --layer says {self.layer}; "
                "leave --layer out"
            )
        layer = self.layer if told is None else told
        if layer is None:
            raise RequestError(f"{path} does not say which block it was read at; pass --layer")
        return layer


@dataclass(frozen=True, eq=False)
class Found:
    """One vector of a foreign file, before anything was checked.

    Attributes:
        site: where it belongs, converted from the format's own convention.
        vector: pointing to the persona, in residual units, in whatever type the file has.
        midpoint: half-way between the class means along the vector; NaN where it is not known.
        finder: what made it, where the file says so.
        position: the pooling rule it was read at, where the file says so.
        name: what the file calls it, where it holds several personas.
        norm: the median residual norm there, where the file lets it be known.
    """

    site: Site
    vector: Shaped[Tensor, "..."]
    midpoint: float = NOT_A_NUMBER
    finder: str | None = None
    position: str | None = None
    name: str | None = None
    norm: float = NOT_A_NUMBER


@runtime_checkable
class Format(Protocol):
    """Other people's vectors on disk: a frozen dataclass without fields.

    The docstring of each says which fields of a `Direction` survive a round trip and which are
    lost. A complete format, a bare tensor that belongs to a block the caller names:

        @dataclass(frozen=True)
        class Bare:
            name: ClassVar[str] = "bare"
            suffix: ClassVar[str] = ".pt"
            convention: ClassVar[str] = "One tensor [d_model]; the file does not name its block."

            def read(self, path: Path, asked: Asked) -> list[Found]:
                site = Site(asked.layer_for(path))
                return [Found(site, tensor_of(read_torch(path), path, n_axes=1))]

            def write(self, path: Path, additions: Additions) -> list[Path]:
                (vector,) = additions.vectors().values()
                return [write_torch(path, vector)]

    Attributes:
        name: the name in `FORMATS`.
        suffix: what the name of a written file ends in; "" for a folder.
        convention: what its layer numbers mean, in one sentence.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    convention: ClassVar[str]

    def read(self, path: Path, asked: Asked) -> list[Found]:
        """The vectors of a file, in any order; in a matrix, zeros stand for a block without one.

        Raises:
            RequestError: the file is missing, damaged, or of another format.
        """
        ...


@runtime_checkable
class WritableFormat(Format, Protocol):
    """A format that can also be written."""

    def write(self, path: Path, additions: Additions) -> list[Path]:
        """Write the vectors whole; the strength is baked in.

        Returns:
            The files written.

        Raises:
            RequestError: the format cannot express these vectors. Nothing was written.
        """
        ...


def require_file(path: Path) -> None:
    """Raise `RequestError` unless there is a file."""
    if path.is_dir():
        raise RequestError(f"{path} is a folder, a file was expected")
    if not path.is_file():
        raise RequestError(f"no such file: {path}")
