"""What is known of a shard that was written whole, and whether it still is as it was."""

from dataclasses import asdict, dataclass
from pathlib import Path

from persona_probe.activations.columns import cure
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import read_json, sha256, write_json


@dataclass(frozen=True)
class Verification:
    """What was read without finding fault.

    Attributes:
        shards: how many files of tensors.
        rows: how many rows are in them.
        bytes: their size on disk.
    """

    shards: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Checksum:
    """The small file beside the tensors, written after them.

    Attributes:
        sha256: of the bytes of the tensors' file.
        bytes: its size.
        first: first of the store's rows in it.
        rows: how many there are.
        fingerprint: of the store's manifest.
    """

    sha256: str
    bytes: int
    first: int
    rows: int
    fingerprint: str

    def write(self, path: Path) -> Path:
        return write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Checksum":
        """What `write` wrote.

        Raises:
            PersonaProbeError: the file is damaged.
        """
        try:
            return cls(**read_json(path))
        except (RequestError, TypeError):
            raise PersonaProbeError(f"{path} is damaged; {cure(path)}") from None

    def fits(self, tensors: Path) -> bool:
        """Whether the tensors are there in full size; their bytes are not read."""
        return tensors.is_file() and tensors.stat().st_size == self.bytes

    def check(self, tensors: Path, named: Path | None = None) -> None:
        """Read every byte of the tensors.

        Args:
            tensors: their file.
            named: the file to complain about, where `tensors` is a copy of it.

        Raises:
            PersonaProbeError: they are not what was written.
        """
        told = named or tensors
        if not tensors.is_file():
            raise PersonaProbeError(f"{told} is missing; {cure(told)}")
        if (size := tensors.stat().st_size) != self.bytes:
            raise PersonaProbeError(
                f"{told} has {size} bytes instead of {self.bytes}; {cure(told)}"
            )
        if (found := sha256(tensors)) != self.sha256:
            raise PersonaProbeError(
                f"{told} has other bytes than were written (SHA-256 {found[:12]}… instead of "
                f"{self.sha256[:12]}…); {cure(told)}"
            )
