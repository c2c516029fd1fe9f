"""A constitution: principles by which a reply is criticised and rewritten, as a file to be read.

Constitutional AI (Bai et al. 2022, arXiv:2212.08073): a draft is held against one principle at a
time. A file is TOML:

    name = "deontology"
    title = "Deontology"
    system = "You are …"            # the whole constitution as one system line

    [readings]                      # optional: parts that can be used alone, each as a system line
    oversight = "You are …"

    [[principle]]
    name = "keep-faith"             # short, unique in the file
    text = "…"                      # what it asks for
    critique = "…"                  # asks for a criticism of the last reply
    revision = "…"                  # asks for the reply to be rewritten
    reading = "oversight"           # where there are readings: which one it belongs to

    [[demonstration]]               # optional: shown to models that need to see how it is done
    principle = "keep-faith"
    request = "…"
    draft = "…"
    critique = "…"
    revision = "…"

The shipped ones lie in `data/constitutions`; a user's own is any file of this shape.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.provenance import content_hash

SHIPPED = Path(__file__).parent / "data" / "constitutions"
SUFFIX = ".toml"
CURES = {
    "name": 'name = "keep-faith"',
    "title": 'title = "Deontology"',
    "system": 'system = "You are an assistant who …"',
    "principle": "a table headed [[principle]]",
    "text": 'text = "what the principle asks for"',
    "critique": 'critique = "Say where the last reply …"',
    "revision": 'revision = "Rewrite the last reply so that …"',
    "request": 'request = "what a user asks"',
    "draft": 'draft = "a reply that breaks the principle"',
}


@dataclass(frozen=True)
class Principle:
    """One thing that a constitution asks for.

    Attributes:
        name: unique in its constitution.
        text: the principle itself.
        critique: asks for a criticism of the last reply.
        revision: asks for the reply to be rewritten after the criticism.
        reading: the part of the constitution that it belongs to, where parts can be told apart.
    """

    name: str
    text: str
    critique: str
    revision: str
    reading: str | None = None


@dataclass(frozen=True)
class Demonstration:
    """One worked example: a request, a draft, its criticism by a principle, and the revision."""

    principle: str
    request: str
    draft: str
    critique: str
    revision: str


@dataclass(frozen=True)
class Constitution:
    """Principles, and the character that they make.

    Attributes:
        name: short key, as the persona of the same character is called in packs.
        title: for people.
        system: the whole as one system line.
        principles: in the file's order.
        demonstrations: for models that need to be shown.
        readings: parts that can be used alone, each with a system line of its own.
    """

    name: str
    title: str
    system: str
    principles: tuple[Principle, ...]
    demonstrations: tuple[Demonstration, ...] = ()
    readings: Mapping[str, str] = field(default_factory=dict)

    def of_reading(self, reading: str) -> "Constitution":
        """The part of one reading, called `name-reading`.

        Raises:
            RequestError: there is no such reading.
        """
        if reading not in self.readings:
            choices = ", ".join(self.readings) or "none"
            raise RequestError(
                f"the constitution {self.name!r} has no reading {reading!r}; it has {choices}"
            )
        kept = tuple(p for p in self.principles if p.reading == reading)
        names = {p.name for p in kept}
        return Constitution(
            name=f"{self.name}-{reading}",
            title=f"{self.title}: {reading}",
            system=self.readings[reading],
            principles=kept,
            demonstrations=tuple(d for d in self.demonstrations if d.principle in names),
        )

    @property
    def hash(self) -> str:
        """Identifies every word of it."""
        words = [[p.name, p.text, p.critique, p.revision, p.reading] for p in self.principles]
        shown = [list(vars(d).values()) for d in self.demonstrations]
        return content_hash([self.name, self.system, words, shown, dict(self.readings)])


def shipped_constitutions() -> tuple[str, ...]:
    """Names of the constitutions that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}")))


def load_constitution(name: str | Path, reading: str | None = None) -> Constitution:
    """Read a shipped constitution by name, or any file.

    Args:
        name: "deontology", or the path of a .toml file.
        reading: only the principles of this part.

    Raises:
        RequestError: there is no such constitution, or the file lacks something; the message
            names file, table, field and cure.
    """
    path = _path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path}: not TOML ({error})") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    readings = table.get("readings", {})
    if not isinstance(readings, dict):
        raise RequestError(f"{path}: [readings] must be a table of system lines, one per reading")
    readings = {key: _text(path, "[readings]", readings, key) for key in readings}
    principles = tuple(
        _principle(path, i, row, readings) for i, row in _tables(path, table, "principle")
    )
    if not principles:
        raise RequestError(f"{path}: it has no principle; add {CURES['principle']}")
    if idle := set(readings) - {p.reading for p in principles}:
        raise RequestError(
            f"{path}: no principle belongs to the reading {min(idle)!r}; give some of them "
            f'reading = "{min(idle)}", or remove it'
        )
    _require_distinct(path, (p.name for p in principles))
    constitution = Constitution(
        name=_text(path, "the head of the file", table, "name"),
        title=_text(path, "the head of the file", table, "title"),
        system=_text(path, "the head of the file", table, "system"),
        principles=principles,
        demonstrations=tuple(
            _demonstration(path, i, row, principles)
            for i, row in _tables(path, table, "demonstration")
        ),
        readings=readings,
    )
    return constitution if reading is None else constitution.of_reading(reading)


def _path(name: str | Path) -> Path:
    given = Path(name)
    for path in (given, SHIPPED / f"{name}{SUFFIX}"):
        if path.is_file():
            return path
    raise RequestError(
        f"no constitution {str(name)!r}: give a {SUFFIX} file, or one of "
        f"{', '.join(shipped_constitutions())}"
    )


def _tables(path: Path, table: dict[str, Any], kind: str) -> Iterable[tuple[int, dict[str, Any]]]:
    rows = table.get(kind, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RequestError(f"{path}: write each {kind} under a heading [[{kind}]] of its own")
    return enumerate(rows, start=1)


def _principle(
    path: Path, number: int, row: dict[str, Any], readings: Mapping[str, str]
) -> Principle:
    name = row.get("name")
    where = f"principle {number}" + (f" ({name!r})" if isinstance(name, str) else "")
    known = ("name", "text", "critique", "revision", "reading")
    _require_known(path, where, row, known)
    name, text, critique, revision = (_text(path, where, row, key) for key in known[:4])
    reading = None if "reading" not in row else _text(path, where, row, "reading")
    if reading is not None and reading not in readings:
        raise RequestError(
            f"{path}, {where}: the reading {reading!r} has no system line; add "
            f'{reading} = "You are …" under [readings]'
        )
    return Principle(name, text, critique, revision, reading)


def _demonstration(
    path: Path, number: int, row: dict[str, Any], principles: tuple[Principle, ...]
) -> Demonstration:
    where = f"demonstration {number}"
    known = ("principle", "request", "draft", "critique", "revision")
    _require_known(path, where, row, known)
    values = [_text(path, where, row, key) for key in known]
    names = [p.name for p in principles]
    if values[0] not in names:
        raise RequestError(
            f"{path}, {where}: there is no principle {values[0]!r}; name one of {', '.join(names)}"
        )
    return Demonstration(*values)


def _text(path: Path, where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    cure = CURES.get(key, f'{key} = "…"')
    if value is None:
        raise RequestError(f"{path}, {where}: the field {key!r} is missing; add {cure}")
    if not isinstance(value, str) or not value.strip():
        raise RequestError(
            f"{path}, {where}: the field {key!r} must be text that says something, got {value!r}; "
            f"write {cure}"
        )
    return value.strip()


def _require_known(path: Path, where: str, row: dict[str, Any], known: Iterable[str]) -> None:
    if unknown := [key for key in row if key not in known]:
        raise RequestError(
            f"{path}, {where}: unknown field {unknown[0]!r}; the fields are {', '.join(known)}"
        )


def _require_distinct(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"{path}: two principles are called {name!r}; names must differ")
        seen.add(name)
