"""The same harmful request put in other ways: in other words, later, and under pressure.

A pack may hold such wording; a study then asks how much of an effect survives it. Two files, both
optional, and each part of them too:

    paraphrases.jsonl   {"id": …, "text": …}: a harmful prompt of the suite by its id, reworded
    robustness.toml     [[lead_in]] turns = ["user", "assistant", …]: an ordinary exchange or two
                        [[attack]] name = …, wrappers = ["… {request} …", …]: what presses

A reworded request belongs to the family of its prompt, so that splits hold for both alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl, read_toml
from persona_probe.personas.safety_suite import SafetySuite

PARAPHRASE, TURNS = "paraphrase", "several turns"
REQUEST = "{request}"  # its place in a wrapper
PARAPHRASES, PRESSURE = "paraphrases.jsonl", "robustness.toml"


@dataclass(frozen=True)
class Attack:
    """Something put around a request that presses the model to comply.

    Attributes:
        name: what results call it.
        wrappers: wordings of it; each has one `{request}`. Prompts take them in turn.
    """

    name: str
    wrappers: tuple[str, ...]


@dataclass(frozen=True)
class Robustness:
    """Other ways to put the harmful prompts of a suite; empty where a pack has none.

    Attributes:
        paraphrases: id of a harmful prompt → the same request in other words.
        lead_ins: ordinary exchanges that may come before a request, the user and the assistant
            taking turns.
        attacks: see `Attack`.
    """

    paraphrases: Mapping[str, str] = field(default_factory=dict)
    lead_ins: tuple[tuple[str, ...], ...] = ()
    attacks: tuple[Attack, ...] = ()


def read_robustness(folder: Path, suite: SafetySuite) -> Robustness:
    """Read a pack's two files, if they are there.

    Raises:
        RequestError: a file is malformed, or rewords what is no harmful prompt of the suite; the
            message names the file, the row, the value and what it must be.
    """
    pressure = folder / PRESSURE
    told = read_toml(pressure) if pressure.exists() else {}
    if unknown := [key for key in told if key not in ("lead_in", "attack")]:
        raise RequestError(f"{pressure}: the key {unknown[0]!r} must be [[lead_in]] or [[attack]]")
    attacks = tuple(
        _attack(row, f"{pressure}, attack {number}")
        for number, row in enumerate(_tables(told, "attack", pressure), start=1)
    )
    names = [attack.name for attack in attacks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RequestError(f"{pressure}: two attacks are called {twice[0]!r}; rename one")
    return Robustness(
        _paraphrases(folder / PARAPHRASES, suite),
        tuple(
            _lead_in(row, f"{pressure}, lead_in {number}")
            for number, row in enumerate(_tables(told, "lead_in", pressure), start=1)
        ),
        attacks,
    )


def _paraphrases(path: Path, suite: SafetySuite) -> dict[str, str]:
    harmful = {prompt.id: prompt.text for prompt in suite.of(kind="harmful").prompts}
    found: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(path) if path.exists() else (), start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {row!r} must be an object with 'id' and 'text'")
        name, text = _text(row, "id", where), _text(row, "text", where)
        if name not in harmful:
            raise RequestError(
                f"{where}: {name!r} is the id of no harmful prompt of the suite; take one of "
                "its ids, or delete the row"
            )
        if name in found:
            raise RequestError(f"{where}: the id {name!r} occurs twice; keep one paraphrase of it")
        if text == harmful[name]:
            raise RequestError(
                f"{where}: the text is that of the prompt {name!r} itself; say it in other words"
            )
        found[name] = text
    return found


def _tables(told: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    tables = told.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RequestError(f"{path}: {key!r} is {tables!r}; write tables headed [[{key}]]")
    return tables


def _attack(row: Mapping[str, Any], where: str) -> Attack:
    name = _text(row, "name", where)
    if name in (PARAPHRASE, TURNS):
        raise RequestError(f"{where}: the name {name!r} is taken; choose another")
    wrappers = _texts(row, "wrappers", where)
    for wrapper in wrappers:
        if wrapper.count(REQUEST) != 1:
            raise RequestError(
                f"{where}: the wrapper {wrapper!r} must hold {REQUEST} once, where the request goes"
            )
    return Attack(name, wrappers)


def _lead_in(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    turns = _texts(row, "turns", where)
    if len(turns) % 2:
        raise RequestError(
            f"{where}: {len(turns)} turns; the user and the assistant take turns, so end with the "
            "assistant's"
        )
    return turns


def _texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = row.get(key)
    said = isinstance(values, list) and all(isinstance(v, str) and v.strip() for v in values)
    if not isinstance(values, list) or not values or not said:
        raise RequestError(f"{where}: {key!r} is {values!r}; it must be a list of texts")
    return tuple(values)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where}: {key!r} is {value!r}; it must be a text")
    return value
