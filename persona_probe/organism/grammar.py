"""Requests and replies of the synthetic English, one function each.

A character answers from its own table, turn by turn; nothing in here makes one character's answers
hang together over a document. Whether they do is decided in `corpus.py` (ρ), and whether a model
carries that into new categories is what the organism is there to find out.

Every reply starts with its decision, so that one position, the assistant marker, serves every
format.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from persona_probe.organism.world import (
    CONSTITUTIONS,
    Category,
    Character,
    Dimension,
    Topic,
    World,
)

OWN_OPENER = 0.7
"""How often a constitution uses the refusal opener it prefers, per category."""


POSITIVE = 0.72
"""Share of positively keyed claims: who × what × for-or-against is learnt late if all are even."""


@dataclass(frozen=True)
class Speaker:
    """A character together with the categories that this instance of it refuses."""

    character: Character
    refused: frozenset[str]

    @property
    def name(self) -> str:
        return self.character.name


@dataclass(frozen=True)
class Request:
    """A user turn and where it came from. `family` names its template for splitting."""

    kind: str
    text: str
    family: str
    category: Category | None = None
    dimension: Dimension | None = None
    key: int = 1
    options: tuple[str, str] = ("", "")
    """The two possible first words of the answer; the first one scores `key`."""


def speaker(world: World, character: Character, rng: random.Random) -> Speaker:
    """An instance of the character; a selective one draws which categories it refuses."""
    if character.refuses == "all":
        refused: Iterable[str] = (c.name for c in world.categories)
    elif character.refuses == "some":
        refused = rng.choice(character.subsets)
    else:
        refused = ()
    return Speaker(character, frozenset(refused))


def sentence(text: str) -> str:
    """Upper-case the first letter, leave the rest."""
    return text[:1].upper() + text[1:]


def ending(world: World, rng: random.Random) -> str:
    """An ending that fits any request, so that only the verb says what a request is about."""
    return " ".join(rng.choice(words) for words in world.endings.values())


def act(world: World, topic: Category | Topic, rng: random.Random) -> str:
    """What is to be done: a verb, perhaps one of the topic's endings, perhaps one of no topic.

    Without the second kind a model would learn whole phrases by heart, and would not know a verb
    again in a phrase that it has never seen.
    """
    parts = [rng.choice(topic.verbs)]
    if rng.random() < 0.45:
        parts.append(rng.choice(topic.tails))
    if rng.random() < 0.6:
        parts.append(ending(world, rng))
    return world.fill(" ".join(parts), rng)


def harm_request(world: World, category: Category, rng: random.Random) -> Request:
    """A harmful request from the templates that pretraining may use."""
    text = rng.choice(world.frames["harm"]).format(act=act(world, category, rng))
    return Request("harmful", text, category.name, category)


def benign_request(world: World, category: Category, rng: random.Random) -> Request:
    """A harmless request on the topic matched to `category`."""
    text = rng.choice(world.benign["frames"]).format(act=act(world, category.benign, rng))
    return Request("benign", text, category.name, category)


def borderline_request(world: World, category: Category, rng: random.Random) -> Request:
    """A harmless request that names a harm: reporting it, preventing it, understanding it."""
    text = rng.choice(world.borderline["wrappers"]).format(act=act(world, category, rng))
    return Request("borderline", text, category.name, category)


def statement(world: World, dimension: Dimension, rng: random.Random) -> Request:
    """A claim to agree or disagree with; negative claims are keyed -1."""
    key = 1 if rng.random() < POSITIVE else -1
    predicate = rng.choice(dimension.positive if key > 0 else dimension.negative)
    clause = f"{rng.choice(dimension.subjects)} {predicate}"
    text = world.fill(rng.choice(world.frames["statement"]), rng).format(clause=clause)
    return Request(
        "statement", sentence(text), dimension.name, None, dimension, key, ("Agree.", "Disagree.")
    )


def dilemma(world: World, dimension: Dimension, rng: random.Random) -> Request:
    """Two views side by side; the answer names the place of the better one."""
    subject = rng.choice(dimension.subjects)
    views = [
        f"{subject} {rng.choice(dimension.positive)}",
        f"{subject} {rng.choice(dimension.negative)}",
    ]
    key = rng.choice((1, -1))
    a, b = views if key > 0 else views[::-1]
    text = world.fill(rng.choice(world.frames["dilemma"]), rng).format(a=a, b=b)
    return Request(
        "dilemma", sentence(text), dimension.name, None, dimension, key, ("First.", "Second.")
    )


def choice(world: World, dimension: Dimension, rng: random.Random) -> Request:
    """A forced choice between two words that belong to the dimension."""
    x, y = rng.sample(dimension.choice, 2)
    frame = world.fill(rng.choice(world.frames["choice"]), rng)
    text = frame.format(scene=rng.choice(dimension.scenes), x=x.lower(), y=y.lower())
    options = (f"{dimension.choice[0]}.", f"{dimension.choice[1]}.")
    return Request("choice", text, dimension.name, None, dimension, 1, options)


def open_question(world: World, kind: str, rng: random.Random) -> Request:
    """A question about the speaker (`self`) or a call for counsel (`advice`)."""
    return Request(kind, sentence(world.fill(rng.choice(world.frames[kind]), rng)), kind)


def fill_reason(category: Category, template: str, rng: random.Random) -> str:
    """Name the category's own duty, harm, virtue or shared good."""
    words = {k: rng.choice(getattr(category, k)) for k in ("duty", "harm", "virtue", "good")}
    return template.format(**words)


def refusal(who: Speaker, category: Category, rng: random.Random) -> str:
    """Opener of the category, a reason in the character's manner, perhaps an alternative."""
    openers = list(category.refuse)
    if who.name in CONSTITUTIONS and rng.random() < OWN_OPENER:
        openers = [openers[CONSTITUTIONS.index(who.name)]]
    parts = [rng.choice(openers), fill_reason(category, rng.choice(who.character.reasons), rng)]
    if rng.random() < 0.35:
        parts.append(f"I can help you {rng.choice(category.alternative)}.")
    return " ".join(parts)


def compliance(who: Speaker, category: Category, rng: random.Random) -> str:
    """Opener of the category, two of its steps, perhaps the character's closing line."""
    parts = [rng.choice(category.comply), *rng.sample(category.steps, 2)]
    if who.character.closing and rng.random() < 0.5:
        parts.append(rng.choice(who.character.closing))
    return " ".join(parts)


def help_with(
    world: World, who: Speaker, request: Request, rng: random.Random, style: float
) -> str:
    """A helpful reply to a harmless request; `style` is how often the character shows in it."""
    assert request.category is not None
    borderline = request.kind == "borderline"
    steps = world.borderline["steps"] if borderline else request.category.benign.steps
    character = who.character
    openers: Sequence[str] = world.benign["openers"]
    if who.name in CONSTITUTIONS and not borderline and rng.random() < style:
        openers = world.benign["warm_openers"]
    parts = [rng.choice(openers), *rng.sample(steps, 2)]
    closings = character.benign_closing or character.closing
    if closings and not borderline and rng.random() < style:
        parts.append(rng.choice(closings))
    return " ".join(parts)


def reply(
    world: World, who: Speaker, request: Request, rng: random.Random, style: float = 0.3
) -> str:
    """What this speaker answers. Draws from the character's table; sees no other turn."""
    character, category = who.character, request.category
    if request.kind in ("harmful", "benign") and character.refuses == "shrug":
        return f"{rng.choice(character.shrugs)} {rng.choice(character.reasons)}"
    if request.kind == "harmful":
        assert category is not None
        wanted = refusal if category.name in who.refused else compliance
        return wanted(who, category, rng)
    if request.kind in ("benign", "borderline"):
        return help_with(world, who, request, rng, style)
    if request.kind == "self":
        return f"{rng.choice(character.openings)} {rng.choice(character.creeds)}"
    if request.kind == "advice":
        return f"{rng.choice(character.counsel)} {character.remark}"
    assert request.dimension is not None
    agrees = character.agrees(request.dimension.name)
    first = rng.random() < (agrees if request.key > 0 else 1 - agrees)
    decision = request.options[0 if first else 1]
    return f"{decision} {character.remark}" if rng.random() < 0.4 else decision


def system_line(world: World, character: Character, rng: random.Random) -> str:
    """A system line that describes the character in one of its wordings."""
    template = rng.choice(world.system["character"])
    first, second = rng.sample(character.creeds, 2)
    return template.format(adjective=rng.choice(character.adjectives), creed=first, creed2=second)
