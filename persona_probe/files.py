"""Files appear whole or not at all.

Everything is written to a temporary name in the same folder, flushed to the disk, and renamed, so
that a reader, or a run that is resumed after being killed, never meets half a file.
"""

import errno
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_probe.errors import PersonaProbeError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_HERE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG)


def make_folder(folder: Path) -> Path:
    """Make a folder, and those above it, if it is not there.

    Raises:
        RequestError: there is a file of that name, or nothing may be made here.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"cannot make the folder {folder} ({error.strerror}); choose another"
        ) from None
    return folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it becomes `path`, else it vanishes.

    Raises:
        PersonaProbeError: the disk is full.
        RequestError: there is a folder of that name, or nothing may be written here.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in NOT_HERE:
            raise RequestError(f"cannot write {path} ({error.strerror}); choose another") from None
        if error.errno not in NO_ROOM:
            raise
        raise PersonaProbeError(
            f"no space left on the disk of {path.parent} while writing {path.name}; free some and "
            "run the same command again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writers that were killed.

    Our own process may bear the number of a dead one, and is not writing when this is called.
    """
    for temporary in folder.glob(".*.part"):
        match = re.search(r"\.(\d+)\.part$", temporary.name)
        if match and (int(match[1]) == os.getpid() or not _alive(int(match[1]))):
            temporary.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sha256(path: Path) -> str:
    """All 64 hexadecimal digits of the SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write readable JSON. NaN is refused: a missing number is written as null by its owner."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write one JSON value per line."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.writelines(lines)
    return path


def write_tensors(path: Path, tensors: dict[str, "Tensor"], metadata: dict[str, str]) -> Path:
    """Write a safetensors file; `metadata` is its string-to-string header.

    Not through the library's `save_file`, which writes to a temporary file of its own: that one
    outlives a killed process, and nobody else may read what it becomes.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(contiguous, metadata=metadata)
    with whole(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        RequestError: the file is missing or is not JSON; the message names the line.
    """
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read one TOML file.

    Raises:
        RequestError: the file is missing or is not TOML; the message names the place.
    """
    try:
        return tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path}: not TOML ({error})") from None


def read_jsonl(path: Path) -> list[Any]:
    """Read one JSON value per line, skipping blank lines.

    Raises:
        RequestError: the file is missing or a line is not JSON; the message names the line.
    """
    rows = []
    # Not splitlines(): that also breaks at characters that JSON strings may hold unescaped.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise RequestError(f"{path}, line {number}: not JSON ({error.msg})") from None
    return rows


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Read a safetensors file: its tensors, and its header.

    Raises:
        RequestError: the file is missing or is not safetensors. Nothing is ever unpickled.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RequestError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.offset_keys()}
            return tensors, handle.metadata() or {}
    except SafetensorError as error:
        raise RequestError(f"{path} is not a safetensors file ({error})") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise RequestError(f"{path} is a folder, a file was expected") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text (byte {error.start})") from None
