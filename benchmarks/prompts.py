"""Conversations of mixed length: what is read, the same for every method."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist

MEDIAN, SPREAD, SHORTEST, LONGEST = 53, 0.9, 8, 386
GOLDEN = (5**0.5 - 1) / 2
LETTERS = "abcdefghijklmnopqrstuvwxyz ,."


@dataclass(frozen=True)
class Prompt:
    """One conversation.

    Attributes:
        question: what the user says; one token per letter.
        reply: what the assistant says, right behind it.
        ids: both as token ids.
        prompt_length: tokens of the question.
    """

    question: str
    reply: str
    ids: list[int]
    prompt_length: int

    def __len__(self) -> int:
        return len(self.ids)


def texts(n: int) -> list[tuple[str, str]]:
    """Questions and replies whose joint lengths are log-normal, as those of chat logs are.

    Lengths are quantiles in the order of the golden-ratio sequence: in no order of size, and the
    first 32 have nearly the same mix as all of them, so that a subset is a fair sample.
    """
    rng = random.Random(0)
    found = []
    for i in range(n):
        share = (0.5 + i * GOLDEN) % 1.0
        drawn = MEDIAN * math.exp(SPREAD * NormalDist().inv_cdf(share or 0.5))
        length = min(max(round(drawn), SHORTEST), LONGEST)
        asked = max(1, min(length - 1, round(length * rng.uniform(0.25, 0.75))))
        letters = "".join(rng.choices(LETTERS, k=length))
        found.append((letters[:asked], letters[asked:]))
    return found


def save(path: Path, prompts: Sequence[Prompt]) -> Path:
    """Write prompts where another interpreter can read them."""
    path.write_text(json.dumps([asdict(prompt) for prompt in prompts]))
    return path


def load(path: Path) -> list[Prompt]:
    """Read what `save` wrote."""
    return [Prompt(**fields) for fields in json.loads(path.read_text())]
