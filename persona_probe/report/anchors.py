"""Every row of a run folder knows its place, so that a number on the page can point to it.

A row's place is its file and its number there, and serves as the id of the row in the page:
`arms.json-17` is the eighteenth row of arms.json, `profiles.json-identification-3` the fourth of
its list "identification", `verdict.json-summary` an entry that is no list of rows.
"""

from collections.abc import Iterable, Mapping
from typing import Any

PLACE = "@"  # the key under which a row holds its place; no file has it
Row = dict[str, Any]


def place_of(row: Mapping[str, Any] | None) -> str | None:
    """Where a row comes from; `None` for rows that were made up on the way."""
    place = (row or {}).get(PLACE)
    return place if isinstance(place, str) else None


def href(row: Mapping[str, Any] | None) -> str | None:
    """The link to a row."""
    place = place_of(row)
    return None if place is None else f"#{place}"


def placed(name: str, document: Any) -> dict[str, Any]:
    """Give every row of a file its place, in the row itself.

    Args:
        name: of the file, after whatever tells its run from another.
        document: what the file holds.

    Returns:
        Place → row or entry.
    """
    found: dict[str, Any] = {}
    if isinstance(document, list):
        return _several(name, document)
    if not isinstance(document, dict):
        return found
    for key, value in list(document.items()):
        stem = name if key == "rows" else f"{name}-{_word(key)}"
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            found |= _several(stem, value)
        elif isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            found |= _several(stem, value.values())
        else:
            found[stem] = {key: value}
    return found


def bare(row: Any) -> Any:
    """The row as its file has it."""
    return {k: v for k, v in row.items() if k != PLACE} if isinstance(row, dict) else row


def _several(stem: str, rows: Iterable[Any]) -> dict[str, Any]:
    found = {}
    for number, row in enumerate(rows):
        place = f"{stem}-{number}"
        found[place] = row
        if isinstance(row, dict):
            row[PLACE] = place
    return found


def _word(key: str) -> str:
    """A key as part of an id: letters, digits, and nothing that HTML or a link could mistake."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in key)
