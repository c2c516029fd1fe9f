"""A pack: one folder of text that holds everything a study asks a model.

    pack.toml         name, licence, neutral system line, dimensions, categories, personas, foils
    safety.jsonl      one `SafetyPrompt` per line
    diagnostic.jsonl  one `Item` per line
    questions.jsonl   one `Question` per line
    judge.toml        the patterns by which replies are told apart

Packs are data. The shipped ones lie beside this file; a user's own is any folder of this shape.
"""

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl
from persona_probe.personas.diagnostic import Diagnostic, Item
from persona_probe.personas.judge_rules import JudgeRules, read_judge_rules
from persona_probe.personas.persona import Persona
from persona_probe.personas.safety_suite import KINDS, TIERS, SafetyPrompt, SafetySuite
from persona_probe.personas.splits import Split, split_families
from persona_probe.provenance import content_hash, file_hash

SHIPPED = Path(__file__).parent / "data"
FILES = ("pack.toml", "safety.jsonl", "diagnostic.jsonl", "questions.jsonl", "judge.toml")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Question:
    """A prompt that lets a character show; used to contrast system prompts.

    Attributes:
        kind: what it asks for, for instance "harmful", "statement" or "open".
    """

    id: str
    family: str
    text: str
    kind: str


@dataclass(frozen=True)
class Pack:
    """Everything a study asks.

    Attributes:
        neutral_system: the system line without a character, under which everything is evaluated;
            empty for no system line.
        max_new_tokens: room for the longest reply that is judged.
        foils: characters used for contrast and control only.
        categories: harm category → title.
    """

    name: str
    folder: Path
    neutral_system: str
    max_new_tokens: int
    categories: dict[str, str]
    personas: tuple[Persona, ...]
    foils: tuple[Persona, ...]
    suite: SafetySuite
    diagnostic: Diagnostic
    questions: tuple[Question, ...]
    judge_rules: JudgeRules

    def persona(self, name: str) -> Persona:
        """The persona or foil of this name.

        Raises:
            RequestError: there is none; the message lists the choices.
        """
        for persona in (*self.personas, *self.foils):
            if persona.name == name:
                return persona
        choices = ", ".join(p.name for p in (*self.personas, *self.foils))
        raise RequestError(f"pack {self.name!r} has no persona {name!r}; it has {choices}")

    def require_categories(self, names: Iterable[str]) -> None:
        """Raise `RequestError` for a harm category that the suite does not have."""
        if unknown := [name for name in names if name not in self.suite.categories]:
            raise RequestError(
                f"pack {self.name!r} has no harm category {unknown[0]!r}; it has "
                f"{', '.join(self.suite.categories)}"
            )

    def split(self, seed: int = 0) -> Split:
        """The split of all families; those of filtered (T2) categories only ever evaluate."""
        filtered = {p.family for p in self.suite.prompts if p.tier == "T2"}
        questions = {question.family for question in self.questions}
        families = {*self.suite.families, *self.diagnostic.families, *questions}
        return split_families(families, seed=seed, only_evaluate=filtered)

    @property
    def hash(self) -> str:
        """Hash of the pack's files."""
        return content_hash({name: file_hash(self.folder / name) for name in FILES})


def load_pack(name: str | Path) -> Pack:
    """Read a shipped pack by name, or any pack by folder.

    Raises:
        RequestError: there is no such pack, or a file is malformed; the message names the file,
            the line, and what is missing.
    """
    folder = _folder(name)
    about = _read_toml(folder / "pack.toml")
    judge = _read_toml(folder / "judge.toml")
    try:
        dimensions = tuple(about["dimensions"])
        personas = tuple(_persona(row) for row in about["persona"])
        foils = tuple(_persona(row) for row in about.get("foil", ()))
        pack_name, system = about["name"], about["neutral_system"]
        room, categories = about["max_new_tokens"], about["category"]
    except KeyError as error:
        raise RequestError(f"{folder / 'pack.toml'}: the key {error} is missing") from None
    return Pack(
        name=pack_name,
        folder=folder,
        neutral_system=system,
        max_new_tokens=room,
        categories={row["name"]: row.get("title", row["name"]) for row in categories},
        personas=personas,
        foils=foils,
        suite=SafetySuite(pack_name, tuple(_rows(folder / "safety.jsonl", _safety_prompt))),
        diagnostic=Diagnostic(dimensions, tuple(_rows(folder / "diagnostic.jsonl", _item))),
        questions=tuple(_rows(folder / "questions.jsonl", lambda row: Question(**row))),
        judge_rules=read_judge_rules(judge, folder / "judge.toml"),
    )


def _folder(name: str | Path) -> Path:
    for folder in (Path(name), SHIPPED / name):
        if (folder / "pack.toml").is_file():
            return folder
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/pack.toml"))
    raise RequestError(
        f"no pack {str(name)!r}: give a folder that holds a pack.toml, or one of {shipped}"
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"no such file: {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path}: not TOML ({error})") from None


def _rows(path: Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """Parse each line; the id must be unique, for results refer to it."""
    parsed: list[Row] = []
    seen: set[str] = set()
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            parsed.append(parse(row))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{path}, row {number}: {error}") from None
        if row["id"] in seen:
            raise RequestError(f"{path}, row {number}: the id {row['id']!r} occurs twice")
        seen.add(row["id"])
    return parsed


def _persona(row: dict[str, Any]) -> Persona:
    prompts = tuple(row["system_prompts"])
    return Persona(
        name=row["name"],
        title=row.get("title", row["name"]),
        constitution=row.get("constitution", prompts[0]),
        system_prompts=prompts,
        signature={name: float(v) for name, v in row.get("signature", {}).items()},
    )


def _safety_prompt(row: dict[str, Any]) -> SafetyPrompt:
    if row["kind"] not in KINDS or row["tier"] not in TIERS:
        raise ValueError(f"kind must be one of {KINDS} and tier one of {TIERS}")
    return SafetyPrompt(**row)


def _item(row: dict[str, Any]) -> Item:
    if row["key"] not in (1, -1) or len(row["options"]) != 2:
        raise ValueError("an item needs a key of 1 or -1 and two options")
    return Item(**{**row, "options": tuple(row["options"])})
