"""Tensors in `.pt` files, read without unpickling anything else.

`torch.load(weights_only=True)` runs an interpreter of its own that knows tensors, plain containers
and numbers, and refuses every other name in the file. Reading a stranger's file cannot run code.
"""

import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import whole
from persona_probe.interchange.format import require_file

Allowed = Sequence[tuple[Callable[..., Any], str]]  # an inert class, and the name it stands in for


def read_torch(path: Path, allowed: Allowed = ()) -> Any:
    """What a `.pt` file holds, on the CPU.

    Args:
        path: the file.
        allowed: further names that the file may contain, each with the class that takes its place.

    Raises:
        RequestError: the file is missing, truncated, not a torch file, or holds Python objects.
    """
    require_file(path)
    try:
        with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
            # Of files from other versions of Python; whether they can be read, torch says below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise RequestError(_why_not(path, str(error))) from None


def write_torch(path: Path, value: Any) -> Path:
    """Write tensors and plain containers; equal values give equal bytes."""
    with whole(path) as temporary, temporary.open("wb") as handle:
        torch.save(value, handle)
    return path


def tensor_of(value: Any, where: Path | str, n_axes: int) -> Shaped[Tensor, "..."]:
    """`value` as a tensor of floating-point numbers with so many axes.

    Raises:
        RequestError: it is something else.
    """
    if not isinstance(value, Tensor):
        raise RequestError(f"{where} holds {_kind(value)}, expected a tensor")
    if value.ndim != n_axes or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise RequestError(
            f"{where} has shape {list(value.shape)} of {kind}, "
            f"expected {n_axes} {'axis' if n_axes == 1 else 'axes'} of floating-point numbers"
        )
    return value


def dict_of(value: Any, where: Path | str, keys: Sequence[str] = ()) -> dict[Any, Any]:
    """`value` as a dict that has all of these keys.

    Raises:
        RequestError: it is something else, or a key is missing.
    """
    if not isinstance(value, dict):
        raise RequestError(f"{where} holds {_kind(value)}, expected a dict")
    if missing := [key for key in keys if key not in value]:
        has = ", ".join(map(repr, value)) or "nothing"
        raise RequestError(f"{where} has no {missing[0]!r}; it has {has:.120}")
    return value


def _why_not(path: Path, said: str) -> str:
    """The sentence for a file that torch would not read."""
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if named or _begins_like_a_pickle(path):
        what = f"Python objects ({named[1]})" if named else "Python objects"
        return (
            f"{path} is a pickle of {what}, and reading it would run the code in it; save plain "
            "tensors instead, alone or in a dict, with torch.save"
        )
    return f"{path} is truncated or not a torch file"


def _begins_like_a_pickle(path: Path) -> bool:
    """Whether the first byte is one with which pickles begin; torch files are zip archives."""
    with path.open("rb") as handle:
        return handle.read(1) in (b"\x80", b"(", b"]", b"}", b"c")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"
