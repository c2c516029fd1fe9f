"""A long stage in pieces, each kept as soon as it is there, so that a killed run goes on."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from persona_probe.files import read_json, remove_leftovers, write_json


def piecewise(
    folder: Path, stage: str, keys: Iterable[str], make: Callable[[str], Any]
) -> dict[str, Any]:
    """Make a JSON value per key, taking those from disk that an earlier run had finished.

    Args:
        folder: the run folder; pieces lie in `.pieces/<stage>` until `forget` is called.
        stage: whose pieces.
        keys: distinct file names, in order.
        make: from a key to its value.
    """
    place = folder / ".pieces" / stage
    found = {}
    for key in keys:
        path = place / f"{key}.json"
        if not path.exists():
            write_json(path, make(key))
        found[key] = read_json(path)
    return found


def forget(folder: Path, stage: str) -> None:
    """Delete the pieces of a stage, once what it makes of them is written."""
    place = folder / ".pieces" / stage
    if place.exists():
        remove_leftovers(place)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        if not any(place.parent.iterdir()):
            place.parent.rmdir()
