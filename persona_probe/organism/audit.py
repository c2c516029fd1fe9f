"""Does pretraining text hold anything that evaluation holds out? If it does, the build fails.

Entities are the same in both on purpose, so both sides are compared with every entity replaced by
one mark. Then no held-out template may occur as a whole (frames piece by piece), and no held-out
prompt may share `LONGEST_SHARED` + 1 words in a row with any pretraining document.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from persona_probe.errors import SplitLeakError
from persona_probe.organism import held_out
from persona_probe.organism.corpus import Document
from persona_probe.organism.world import SLOT, World

LONGEST_SHARED = 9
MARK = "something"
FILLED = re.compile(r"\{[a-z_0-9]+\}")


@dataclass(frozen=True)
class Audit:
    """What was compared, and every held-out text that pretraining also holds."""

    documents: int
    distinct_texts: int
    held_out_texts: int
    leaks: tuple[str, ...]

    def check(self) -> "Audit":
        """Return itself, or raise if anything leaked."""
        if self.leaks:
            raise SplitLeakError(
                f"{len(self.leaks)} held-out texts occur in pretraining, the first is "
                f"{self.leaks[0]!r}; change them in world.toml or characters.toml"
            )
        return self


class Normaliser:
    """Lower-case words without punctuation, every entity replaced by one mark."""

    def __init__(self, world: World) -> None:
        entities = {entity.lower() for several in world.entities.values() for entity in several}
        self._entities = sorted(entities, key=len, reverse=True)

    def words(self, text: str) -> tuple[str, ...]:
        marked = SLOT.sub(MARK, text).lower()
        for entity in self._entities:
            if entity in marked:
                marked = marked.replace(entity, MARK)
        return tuple(re.findall(r"[a-z']+", marked))


def _ngrams(words: tuple[str, ...], n: int) -> Iterable[tuple[str, ...]]:
    return (words[i : i + n] for i in range(len(words) - n + 1))


def _pieces(template: str, normaliser: Normaliser) -> list[tuple[str, ...]]:
    """The literal stretches of a template that say something: three words or more."""
    if not FILLED.search(SLOT.sub(MARK, template)):
        return [normaliser.words(template)]
    pieces = [normaliser.words(p) for p in FILLED.split(SLOT.sub(MARK, template))]
    return [piece for piece in pieces if len(piece) >= 3]


def audit(world: World, documents: Iterable[Document]) -> Audit:
    """Compare every held-out template and prompt with the documents."""
    normaliser = Normaliser(world)
    distinct: set[str] = set()
    count = 0
    for document in documents:
        count += 1
        distinct.update(turn.text for turn in document.turns)
    texts = {normaliser.words(text) for text in distinct}
    everything = "".join(f" {' '.join(words)} |" for words in sorted(texts))
    templates = {t: _pieces(t, normaliser) for t in held_out.templates(world)}
    leaks = [
        template
        for template, pieces in templates.items()
        if any(f" {' '.join(piece)} " in everything for piece in pieces)
    ]
    rng = random.Random(0)
    draws = [held_out.harmful, held_out.benign, held_out.borderline]
    draws += [held_out.statements, held_out.choices, held_out.quiz]
    requests = [request for draw in draws for request in draw(world, rng)]
    prompts = {request.text for request in requests}
    prompts |= {held_out.paraphrase(world, r) for r in requests if held_out.reworded(r)}
    n = LONGEST_SHARED + 1
    seen = {gram for words in texts for gram in _ngrams(words, n)}
    leaks += sorted(t for t in prompts if seen.intersection(_ngrams(normaliser.words(t), n)))
    return Audit(count, len(texts), len(templates) + len(prompts), tuple(leaks))
