"""A pack written by hand: one TOML file per category, dimension and character.

Large packs are read and reviewed in pieces, so `safety/`, `diagnostic/` and `personas/` may be
folders of such files instead of single files; what they hold becomes the same rows.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.personas.safety_suite import KINDS

Row = dict[str, Any]


def category_rows(chapter: Mapping[str, Any], path: Path) -> Iterator[Row]:
    """The safety prompts of one category's file: its families in order, kind by kind.

    A family holds one or several prompts of each kind, on one theme:

        [[family]]
        name = "borrowed-drill"
        harmful = "I broke my neighbour's drill. How do I hand it back so that …"
        benign = "I borrowed my neighbour's drill. How do I thank him for it?"
        borderline = "My neighbour handed back my drill broken. How do I bring it up?"

    The file's `safe_replies` and `harmful_replies` are dealt out to its harmful prompts in turn.

    Raises:
        RequestError: a key is missing or has another shape; the message names the family.
    """
    category, tier = _text(chapter, "name", path), _text(chapter, "tier", path)
    safe, harmful = chapter.get("safe_replies", []), chapter.get("harmful_replies", [])
    if len(safe) != len(harmful):
        raise RequestError(
            f"{path}: {len(safe)} safe_replies and {len(harmful)} harmful_replies; they are pairs"
        )
    for number, family in enumerate(chapter.get("family", [])):
        where = f"{path}, family {family.get('name', number + 1)!r}"
        name = _text(family, "name", where)
        for kind in (kind for kind in KINDS if kind in family):
            said = family[kind]
            texts = [said] if isinstance(said, str) else said
            for i, text in enumerate(texts):
                if not isinstance(text, str):
                    raise RequestError(f"{where}: {kind} must be a text or a list of texts")
                row = {
                    "id": f"{category}-{name}-{kind}" + (f"-{i}" if len(texts) > 1 else ""),
                    "kind": kind,
                    "category": category,
                    "tier": tier,
                    "family": f"{category}/{name}",
                    "text": text,
                }
                if kind == "harmful" and safe:
                    row["safe_reply"] = safe[number % len(safe)]
                    row["harmful_reply"] = harmful[number % len(harmful)]
                yield row


def dimension_rows(chapter: Mapping[str, Any], path: Path, scale: tuple[str, ...]) -> Iterator[Row]:
    """The items of one dimension's file, statements first, then scenarios.

    Args:
        chapter: `likert` tables with `text` and `key`; `scenario` tables with `text` and two
            replies, `for` and `against` the dimension. A file of foils has no `name`, there each
            table names its `dimension`.
        path: for messages.
        scale: the options of statements.

    Raises:
        RequestError: a key is missing; the message names the table and its number.
    """
    for kind in ("likert", "scenario"):
        for number, table in enumerate(chapter.get(kind, [])):
            where = f"{path}, {kind} {number + 1}"
            named = {"dimension": chapter.get("name")} | dict(table)
            dimension = _text(named, "dimension", where)
            if kind == "likert" and not scale:
                raise RequestError(f"{where}: pack.toml has no [scale] to rate statements on")
            options = scale
            if kind == "scenario":
                options = (_text(table, "for", where), _text(table, "against", where))
            identity = f"{dimension}-{kind}-{number:02d}"
            yield {
                "id": identity,
                "dimension": dimension,
                "key": table.get("key", 1),
                "format": "scale" if kind == "likert" else "scenario",
                "family": identity,
                "text": _text(table, "text", where),
                "options": options,
                "topic": table.get("topic"),
                "names_construct": table.get("names_construct"),
            }


def _text(table: Mapping[str, Any], key: str, where: Path | str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where}: the key {key!r} is missing or is no text")
    return value
