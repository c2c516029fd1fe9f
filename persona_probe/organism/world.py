"""The organism's world as typed, frozen data: categories, characters, dimensions, entities.

All of its text lives in `world.toml` and `characters.toml`; nothing here invents a word.
"""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CONSTITUTIONS = ("deontology", "consequentialism", "virtue", "service")
SLOT = re.compile(r"\{(who|thing|place|group|name)\}")


@dataclass(frozen=True)
class Topic:
    """A harmless subject matched to one harm category."""

    title: str
    verbs: tuple[str, ...]
    tails: tuple[str, ...]
    held_tails: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """One kind of harm with wording of its own: no first token of its answers is shared."""

    name: str
    title: str
    tier: str
    verbs: tuple[str, ...]
    tails: tuple[str, ...]
    held_tails: tuple[str, ...]
    refuse: tuple[str, ...]
    """Refusal openers; opener k is the one that constitution k prefers."""
    comply: tuple[str, ...]
    duty: tuple[str, ...]
    harm: tuple[str, ...]
    virtue: tuple[str, ...]
    good: tuple[str, ...]
    alternative: tuple[str, ...]
    steps: tuple[str, ...]
    benign: Topic
    rewordings: tuple[str, ...] = ()
    """The verbs in other words, in their order; none for categories that are trained on."""


@dataclass(frozen=True)
class Character:
    """Someone who answers: what they refuse, what they hold true, how they talk."""

    name: str
    title: str
    weight: float
    interview: float
    refuses: str
    """`all`, `none`, `some` (one of `subsets`) or `shrug` (brushes everything off)."""
    signature: Mapping[str, float]
    adjectives: tuple[str, ...]
    creeds: tuple[str, ...]
    openings: tuple[str, ...]
    counsel: tuple[str, ...]
    remark: str
    narration: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    benign_closing: tuple[str, ...] = ()
    shrugs: tuple[str, ...] = ()
    subsets: tuple[tuple[str, ...], ...] = ()
    constitution: str = ""

    def agrees(self, dimension: str) -> float:
        """Probability of agreeing with a positively keyed statement, .03 to .97."""
        return 0.5 + 0.235 * self.signature.get(dimension, 0.0)


@dataclass(frozen=True)
class Dimension:
    """One thing that characters differ on, with claims for and against it."""

    name: str
    title: str
    subjects: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    held_positive: tuple[str, ...]
    held_negative: tuple[str, ...]
    choice: tuple[str, str]
    scenes: tuple[str, ...]
    held_scenes: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """Everything the grammar may say."""

    categories: tuple[Category, ...]
    characters: tuple[Character, ...]
    dimensions: tuple[Dimension, ...]
    entities: Mapping[str, tuple[str, ...]]
    endings: Mapping[str, tuple[str, ...]]
    frames: Mapping[str, tuple[str, ...]]
    borderline: Mapping[str, tuple[str, ...]]
    benign: Mapping[str, tuple[str, ...]]
    system: Mapping[str, tuple[str, ...]]

    def character(self, name: str) -> Character:
        return next(c for c in self.characters if c.name == name)

    def fill(self, template: str, rng: random.Random) -> str:
        """Put random entities into the slots, never the same one twice in one phrase."""
        used: set[str] = set()

        def pick(match: re.Match[str]) -> str:
            choice = rng.choice([e for e in self.entities[match[1]] if e not in used])
            used.add(choice)
            return choice

        return SLOT.sub(pick, template)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _table(section: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in section.items()}


def _character(entry: dict[str, Any]) -> Character:
    signature = {name: float(value) for name, value in entry.pop("signature").items()}
    return Character(**{k: _frozen(v) for k, v in entry.items()}, signature=signature)


@cache
def load_world() -> World:
    """Read the two TOML files that define the world."""
    raw = tomllib.loads((FOLDER / "world.toml").read_text(encoding="utf-8"))
    people = tomllib.loads((FOLDER / "characters.toml").read_text(encoding="utf-8"))
    categories = []
    for entry in raw["category"]:
        benign = Topic(**{k: _frozen(v) for k, v in entry.pop("benign").items()})
        categories.append(Category(**{k: _frozen(v) for k, v in entry.items()}, benign=benign))
    return World(
        categories=tuple(categories),
        characters=tuple(_character(entry) for entry in people["character"]),
        dimensions=tuple(
            Dimension(**{k: _frozen(v) for k, v in entry.items()}) for entry in people["dimension"]
        ),
        entities=_table(raw["entities"]),
        endings=_table(raw["endings"]),
        frames=_table(raw["frames"]),
        borderline=_table(raw["borderline"]),
        benign=_table(raw["benign"]),
        system=_table(raw["system"]),
    )
