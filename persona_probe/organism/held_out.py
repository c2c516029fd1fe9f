"""Prompts that pretraining never saw: new verb-phrase templates in new frames.

A family is one phrase that matters (what is asked for, what is claimed), whatever the frame and the
entities around it; splits go by family.
"""

import random
import re
from collections.abc import Iterator

from persona_probe.organism.grammar import Request, sentence
from persona_probe.organism.world import SLOT, Category, World

ROWS_HARMFUL, ROWS_BENIGN, ROWS_BORDERLINE, ROWS_CHOICE, ROWS_QUIZ = 6, 6, 4, 8, 2


def _framed(world: World, frame: str, act: str, rng: random.Random) -> str:
    """Fill phrase and frame together, so that no entity occurs twice."""
    return sentence(world.fill(frame.format(act=act), rng))


def harmful(world: World, rng: random.Random) -> Iterator[Request]:
    """Eight families per category, each a verb with an ending of its own."""
    frames = world.frames["held_harm"]
    for category in world.categories:
        for i, tail in enumerate(category.held_tails):
            act = f"{category.verbs[i % len(category.verbs)]} {tail}"
            for row in range(ROWS_HARMFUL):
                text = _framed(world, frames[(i + row) % len(frames)], act, rng)
                yield Request("harmful", text, f"{category.name}-harmful-{i}", category)


def reworded(request: Request) -> bool:
    """Whether `paraphrase` has other words for it: harmful ones of untrained categories."""
    return request.kind == "harmful" and bool(request.category and request.category.rewordings)


def paraphrase(world: World, request: Request) -> str:
    """A harmful request of `harmful` in other words: another verb and frame, the same entities."""
    assert request.category is not None
    category, number = request.category, int(request.family.rpartition("-")[2])
    k, tail = number % len(category.verbs), category.held_tails[number]
    act = f"{category.verbs[k]} {tail}"
    said = _entities(world, act, request.text)
    act, other = (_filled(words, said) for words in (act, f"{category.rewordings[k]} {tail}"))
    frames = [sentence(frame.format(act=act)) for frame in world.frames["held_harm"]]
    frame = world.frames["held_paraphrase"][frames.index(request.text)]
    return sentence(frame.format(act=other))


def _filled(template: str, said: dict[str, list[str]]) -> str:
    """The template with these entities, slot by slot in their order."""
    left = {slot: iter(entities) for slot, entities in said.items()}
    return SLOT.sub(lambda slot: next(left[slot[1]]), template)


def _entities(world: World, template: str, text: str) -> dict[str, list[str]]:
    """What fills the template's slots where it stands in the text: slot → entities in order."""
    pattern = SLOT.sub(lambda slot: f"({'|'.join(world.entities[slot[1]])})", template)
    match = re.search(pattern, text)
    assert match is not None, f"{template!r} is not in {text!r}"
    found: dict[str, list[str]] = {}
    for slot, entity in zip(SLOT.findall(template), match.groups(), strict=True):
        found.setdefault(slot, []).append(entity)
    return found


def quiz(world: World, rng: random.Random) -> Iterator[Request]:
    """Harmless requests in phrases of their own, whose topic has to be known."""
    return _harmless(world, rng, "quiz", ROWS_QUIZ, verbs_on=3)


def benign(world: World, rng: random.Random) -> Iterator[Request]:
    """Harmless requests matched to the harm categories in topic, frames and number."""
    return _harmless(world, rng, "benign", ROWS_BENIGN)


def _harmless(
    world: World, rng: random.Random, name: str, rows: int, verbs_on: int = 0
) -> Iterator[Request]:
    """Each held-out ending with a verb; with another one, `verbs_on` further, in another set."""
    frames = world.benign["held_frames"]
    for category in world.categories:
        topic = category.benign
        for i, tail in enumerate(topic.held_tails):
            act = f"{topic.verbs[(i + verbs_on) % len(topic.verbs)]} {tail}"
            for row in range(rows):
                text = _framed(world, frames[(i + row) % len(frames)], act, rng)
                yield Request("benign", text, f"{category.name}-{name}-{i}", category)


def borderline(world: World, rng: random.Random) -> Iterator[Request]:
    """Harmless requests that name a harm, in wrappers of their own."""
    for category in world.categories:
        for i, wrapper in enumerate(world.borderline["held_wrappers"]):
            for row in range(ROWS_BORDERLINE):
                k = (ROWS_BORDERLINE * i + row) % len(category.held_tails)
                verb = category.verbs[(k + 4) % len(category.verbs)]
                text = _framed(world, wrapper, f"{verb} {category.held_tails[k]}", rng)
                yield Request("borderline", text, f"{category.name}-borderline-{i}", category)


def statements(world: World, rng: random.Random) -> Iterator[Request]:
    """Claims with unseen predicates; one family per subject and predicate."""
    frames = world.frames["held_statement"]
    for dimension in world.dimensions:
        for key, predicates in ((1, dimension.held_positive), (-1, dimension.held_negative)):
            for i, predicate in enumerate(predicates):
                sign = "plus" if key > 0 else "minus"
                for row, subject in enumerate(dimension.subjects * 3):
                    family = f"{dimension.name}-likert-{sign}-{i}{'abcd'[row % 4]}"
                    frame = world.fill(frames[(i + row + row // 4) % len(frames)], rng)
                    text = sentence(frame.format(clause=f"{subject} {predicate}"))
                    options = ("Agree.", "Disagree.")
                    yield Request("likert", text, family, None, dimension, key, options)


def dilemmas(world: World, rng: random.Random) -> Iterator[Request]:
    """Two unseen claims side by side, each order equally often."""
    frames = world.frames["held_dilemma"]
    for dimension in world.dimensions:
        for i in range(len(dimension.held_positive)):
            for row, subject in enumerate(dimension.subjects * 2):
                views = [
                    f"{subject} {dimension.held_positive[i]}",
                    f"{subject} {dimension.held_negative[i]}",
                ]
                key = 1 if (row + row // 4) % 2 == 0 else -1
                a, b = views if key > 0 else views[::-1]
                frame = world.fill(frames[(i + row // 2 + row // 4) % len(frames)], rng)
                text, family = (
                    sentence(frame.format(a=a, b=b)),
                    f"{dimension.name}-dilemma-{i}{'abcd'[row % 4]}",
                )
                options = ("First.", "Second.")
                yield Request("dilemma", text, family, None, dimension, key, options)


def choices(world: World, rng: random.Random) -> Iterator[Request]:
    """Forced choices about unseen scenes, each order equally often."""
    frames = world.frames["held_choice"]
    for dimension in world.dimensions:
        options = (f"{dimension.choice[0]}.", f"{dimension.choice[1]}.")
        for i, scene in enumerate(dimension.held_scenes):
            for row in range(ROWS_CHOICE):
                x, y = dimension.choice if row % 2 == 0 else dimension.choice[::-1]
                frame = world.fill(frames[row // 2 % len(frames)], rng)
                text = sentence(frame.format(scene=scene, x=x.lower(), y=y.lower()))
                yield Request(
                    "choice",
                    text,
                    f"{dimension.name}-choice-{i}{'ab'[row // 2 % 2]}",
                    None,
                    dimension,
                    1,
                    options,
                )


def open_questions(world: World, rng: random.Random) -> Iterator[Request]:
    """Questions about the speaker and calls for counsel in unseen frames."""
    for kind in ("self", "advice"):
        for i, frame in enumerate(world.frames[f"held_{kind}"]):
            for _ in range(6):
                yield Request(kind, sentence(world.fill(frame, rng)), f"{kind}-{i}")


def templates(world: World) -> list[str]:
    """Every held-out template, slots left in: what the audit looks for in pretraining text."""
    found = [f for key in world.frames if key.startswith("held_") for f in world.frames[key]]
    found += world.borderline["held_wrappers"] + world.benign["held_frames"]
    for category in world.categories:
        found += _acts(category)
    for d in world.dimensions:
        found += [f"{s} {p}" for s in d.subjects for p in d.held_positive + d.held_negative]
        found += d.held_scenes
    return list(found)


def _acts(category: Category) -> list[str]:
    acts = []
    for verbs, tails in (
        (category.verbs, category.held_tails),
        (category.rewordings, category.held_tails),
        (category.benign.verbs, category.benign.held_tails),
    ):
        acts += [f"{verb} {tail}" for verb in verbs for tail in tails]
    return acts
