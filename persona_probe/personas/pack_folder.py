"""From a folder of text to a `Pack`; see `personas.pack` for what lies in it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl, read_toml
from persona_probe.personas.chapters import category_rows, dimension_rows
from persona_probe.personas.diagnostic import SCALE, Diagnostic, Item, Scale
from persona_probe.personas.judge_rules import read_judge_rules
from persona_probe.personas.multiple_choice import read_multiple_choice
from persona_probe.personas.pack import Pack, Question, signatures_hash
from persona_probe.personas.persona import Persona
from persona_probe.personas.robustness import read_robustness
from persona_probe.personas.safety_suite import KINDS, TIERS, SafetyPrompt, SafetySuite

Table = dict[str, Any]
Parsed = TypeVar("Parsed")


def read_pack(folder: Path) -> Pack:
    """Read a pack's folder.

    Raises:
        RequestError: a file is missing or malformed, or the signatures are not the frozen ones.
    """
    path = folder / "pack.toml"
    about = read_toml(path)
    characters = [about, *(read_toml(file) for file in _chapters(folder / "personas"))]
    personas = tuple(_persona(row, path) for row in _characters(characters, "persona"))
    foils = tuple(_persona(row, path) for row in _characters(characters, "foil"))
    try:
        pack_name, system = about["name"], about["neutral_system"]
        room, dimensions = about["max_new_tokens"], tuple(about["dimensions"])
    except KeyError as error:
        raise RequestError(f"{path}: the key {error} is missing") from None
    chapters = [read_toml(file) for file in _chapters(folder / "safety")]
    categories = about.get("category", chapters)
    if not categories:
        raise RequestError(f"{path}: the key 'category' is missing")
    _require_frozen(personas, about.get("signatures_hash"), path)
    judge = folder / "judge.toml"
    questions = _rows(_lines(folder / "questions.jsonl"), lambda row: Question(**row))
    suite = SafetySuite(pack_name, tuple(_rows(_safety(folder), safety_prompt)))
    return Pack(
        name=pack_name,
        folder=folder,
        neutral_system=system,
        max_new_tokens=room,
        categories={row["name"]: row.get("title", row["name"]) for row in categories},
        personas=personas,
        foils=foils,
        suite=suite,
        diagnostic=_diagnostic(folder, dimensions, about.get("scale")),
        questions=tuple(questions),
        judge_rules=read_judge_rules(read_toml(judge), judge),
        split_diagnostic=about.get("split_diagnostic", True),
        robustness=read_robustness(folder, suite),
        multiple_choice=read_multiple_choice(folder),
    )


def safety_prompt(row: Mapping[str, Any]) -> SafetyPrompt:
    """A prompt from a row with the fields of `SafetyPrompt`.

    Raises:
        ValueError: kind or tier is none of the known ones.
    """
    if row["kind"] not in KINDS or row["tier"] not in TIERS:
        raise ValueError(f"kind must be one of {KINDS} and tier one of {TIERS}")
    return SafetyPrompt(**row)


def _safety(folder: Path) -> Iterator[tuple[str, Table]]:
    """Where each prompt stands, and its row."""
    if not (folder / "safety").is_dir():
        yield from _lines(folder / "safety.jsonl")
        return
    for path in _chapters(folder / "safety"):
        for row in category_rows(read_toml(path), path):
            yield f"{path}, {row['family']}", row


def _diagnostic(folder: Path, dimensions: tuple[str, ...], scale: Table | None) -> Diagnostic:
    rating = None if scale is None else _scale(scale, folder / "pack.toml")
    items = _rows(_items(folder, rating), _item)
    own = tuple(item for item in items if item.dimension in dimensions)
    foils = tuple(item for item in items if item.dimension not in dimensions)
    return Diagnostic(dimensions, own, rating, foils)


def _items(folder: Path, rating: Scale | None) -> Iterator[tuple[str, Table]]:
    if not (folder / "diagnostic").is_dir():
        yield from _lines(folder / "diagnostic.jsonl")
        return
    for path in _chapters(folder / "diagnostic"):
        for row in dimension_rows(read_toml(path), path, rating.options if rating else ()):
            yield f"{path}, {row['id']}", row


def _item(row: Mapping[str, Any]) -> Item:
    if row["key"] not in (1, -1):
        raise ValueError("an item needs a key of 1 or -1 and two options")
    if row["format"] != SCALE and len(row["options"]) != 2:
        raise ValueError("an item needs a key of 1 or -1 and two options")
    return Item(**{**row, "options": tuple(row["options"])})


def _scale(table: Table, path: Path) -> Scale:
    try:
        labels = {name: tuple(several) for name, several in table["labels"].items()}
        scale = Scale(tuple(table["options"]), labels, table["kinds"], tuple(table["stems"]))
    except KeyError as error:
        raise RequestError(f"{path}: the key {error} is missing under [scale]") from None
    for name, several in labels.items():
        if len(several) != len(scale.options) or name not in scale.kinds:
            raise RequestError(
                f"{path}: the scale has {len(scale.options)} options, and {len(several)} labels "
                f"of the kind {name!r}; each kind needs one label per option, and a word in kinds"
            )
    for stem in scale.stems:
        if missing := [m for m in ("{statement}", "{options}", "{kind}") if m not in stem]:
            raise RequestError(f"{path}: the stem {stem[:40]!r} has no {missing[0]}")
    return scale


def _characters(tables: list[Table], kind: str) -> Iterator[Table]:
    """Those listed under [[persona]] or [[foil]], and files that are one persona each."""
    for table in tables:
        yield from table.get(kind, ())
        if kind == "persona" and "system_prompts" in table:
            yield table


def _persona(row: Table, path: Path) -> Persona:
    try:
        name, prompts = row["name"], tuple(row["system_prompts"])
    except KeyError as error:
        raise RequestError(f"{path}: a persona has no {error}") from None
    return Persona(
        name=name,
        title=str(row.get("title", name)),
        constitution=row.get("constitution", prompts[0]).strip(),
        system_prompts=prompts,
        signature={name: float(v) for name, v in row.get("signature", {}).items()},
    )


def _require_frozen(personas: tuple[Persona, ...], frozen: str | None, path: Path) -> None:
    found = signatures_hash({persona.name: persona.signature for persona in personas})
    if frozen is not None and found != frozen:
        raise RequestError(
            f"{path}: the signatures have the hash {found}, frozen is {frozen}; signatures are "
            "written before any model is scored: restore them, or give the pack another name and "
            "this hash"
        )


def _chapters(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.toml"))


def _lines(path: Path) -> Iterator[tuple[str, Table]]:
    for number, row in enumerate(read_jsonl(path), start=1):
        yield f"{path}, row {number}", row


def _rows(rows: Iterator[tuple[str, Table]], parse: Callable[[Table], Parsed]) -> list[Parsed]:
    """Parse each row; the id must be unique, for results refer to it."""
    parsed: list[Parsed] = []
    seen: set[str] = set()
    for where, row in rows:
        try:
            parsed.append(parse(row))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{where}: {error}") from None
        if row["id"] in seen:
            raise RequestError(f"{where}: the id {row['id']!r} occurs twice")
        seen.add(row["id"])
    return parsed
