"""What is known of each row of a store of activations: one JSON object per line."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl, write_text
from persona_probe.provenance import file_hash


@dataclass(frozen=True)
class Row:
    """One vector per site belongs to it.

    Attributes:
        id: name of the example; several rows may share it.
        label: its class; "" where none was given.
        family: its prompt family; "" where none was given.
        text: what was read, for baselines that see only the surface.
        metadata: anything else that JSON can say.
    """

    id: str
    label: str = ""
    family: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Write one row per line."""
    return write_text(path, "".join(map(_line, rows)))


def hash_rows(rows: Iterable[Row]) -> str:
    """16 hexadecimal digits of the SHA-256 of the file that `write_rows` writes.

    Raises:
        RequestError: a row cannot be written as JSON.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_line(row).encode())
    return digest.hexdigest()[:16]


def read_rows(path: Path, rows_hash: str) -> list[Row]:
    """Read what `write_rows` wrote.

    Args:
        path: the file.
        rows_hash: what `hash_rows` said of the rows that were written.

    Raises:
        RequestError: the file is missing, or is not as it was written.
    """
    mend = f"delete {path} and run the same extract command again"
    if not path.is_file():
        raise RequestError(f"{path} is missing; {mend}")
    if file_hash(path) != rows_hash:
        raise RequestError(f"{path} was changed since it was written; {mend}")
    return [Row(**value) for value in read_jsonl(path)]


def _line(row: Row) -> str:
    value = vars(row) | {"metadata": dict(row.metadata)}
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"row {row.id!r} cannot be written as JSON ({error}); mend its text or metadata"
        ) from None
    return line + "\n"
