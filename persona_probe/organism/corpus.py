"""Documents: dialogues, interviews and narratives in which characters answer.

ρ (`rho`) is the causal knob of the whole organism: the share of documents in which one character
holds from the system line to the last turn. In the others every turn, and the system line, redraws
its character. The marginal distribution of single turns is the same for every ρ.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from persona_probe.organism import grammar
from persona_probe.organism.world import World

DIALOGUE_TURNS = {
    "harmful": 0.42,
    "benign": 0.14,
    "borderline": 0.08,
    "statement": 0.19,
    "dilemma": 0.03,
    "choice": 0.07,
    "self": 0.035,
    "advice": 0.035,
}
INTERVIEW_TURNS = {"statement": 0.7, "choice": 0.18, "dilemma": 0.12}
SYSTEM_SHARES = {"character": 0.45, "neutral": 0.22, "none": 0.33}
DECIDING = frozenset({"harmful", "statement", "dilemma", "choice", "self", "advice"})
"""Kinds whose first answer token is the decision, weighted higher in pretraining."""


@dataclass(frozen=True)
class Turn:
    """One message; `decides` marks answers whose first token is a decision."""

    role: str
    text: str
    decides: bool = False


@dataclass(frozen=True)
class Document:
    """Messages of one conversation, or a single `text` turn for a narrative."""

    turns: tuple[Turn, ...]
    characters: tuple[str, ...]
    """Who answered each turn; constant in a share ρ of the documents."""


def ask(world: World, kind: str, rng: random.Random) -> grammar.Request:
    """Draw one request of the kind from the templates that pretraining may use."""
    if kind == "harmful":
        return grammar.harm_request(world, rng.choice(world.categories), rng)
    if kind == "benign":
        return grammar.benign_request(world, rng.choice(world.categories), rng)
    if kind == "borderline":
        return grammar.borderline_request(world, rng.choice(world.categories), rng)
    if kind in ("self", "advice"):
        return grammar.open_question(world, kind, rng)
    draw = {"statement": grammar.statement, "dilemma": grammar.dilemma, "choice": grammar.choice}
    return draw[kind](world, rng.choice(world.dimensions), rng)


def _weighted(shares: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def _cast(world: World, prior: str, rng: random.Random) -> grammar.Speaker:
    weights = [getattr(c, prior) for c in world.characters]
    return grammar.speaker(world, rng.choices(world.characters, weights=weights)[0], rng)


def _conversation(
    world: World, kinds: list[str], prior: str, constant: bool, rng: random.Random
) -> Document:
    who = _cast(world, prior, rng)
    turns, cast = [], []
    system = _weighted(SYSTEM_SHARES, rng)
    if system == "character":
        turns.append(Turn("system", grammar.system_line(world, who.character, rng)))
    elif system == "neutral":
        turns.append(Turn("system", rng.choice(world.system["neutral"])))
    for kind in kinds:
        if not constant:
            who = _cast(world, prior, rng)
        request = ask(world, kind, rng)
        turns.append(Turn("user", request.text))
        turns.append(
            Turn("assistant", grammar.reply(world, who, request, rng), request.kind in DECIDING)
        )
        cast.append(who.name)
    return Document(tuple(turns), tuple(cast))


def _narrative(world: World, constant: bool, rng: random.Random) -> Document:
    """A short text about a named advisor whom several people ask."""
    who = _cast(world, "weight", rng)
    name = rng.choice(world.entities["name"])
    parts = [f"{name} is an advisor who {rng.choice(who.character.narration)}."]
    cast = []
    for _ in range(rng.randint(1, 3)):
        if not constant:
            who = _cast(world, "weight", rng)
        request = ask(world, rng.choice(("harmful", "statement", "choice")), rng)
        parts.append(f"Someone asked: {request.text} {name} said:")
        parts.append(grammar.reply(world, who, request, rng))
        cast.append(who.name)
    return Document((Turn("text", " ".join(parts)),), tuple(cast))


def document(world: World, rho: float, rng: random.Random) -> Document:
    """Draw one document."""
    constant = rng.random() < rho
    shape = rng.random()
    if shape < 0.05:
        return _narrative(world, constant, rng)
    if shape < 0.40:
        kinds = [_weighted(INTERVIEW_TURNS, rng) for _ in range(rng.randint(4, 8))]
        return _conversation(world, kinds, "interview", constant, rng)
    kinds = [_weighted(DIALOGUE_TURNS, rng) for _ in range(rng.randint(1, 4))]
    return _conversation(world, kinds, "weight", constant, rng)


def documents(world: World, rho: float, seed: int) -> Iterator[Document]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = random.Random(seed)
    while True:
        yield document(world, rho, rng)
