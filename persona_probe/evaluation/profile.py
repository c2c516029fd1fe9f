"""The persona profile: where a model stands on the diagnostic's dimensions.

Each item offers two fixed answers. Its score is the difference of their probabilities, each taken
at the first token where the answers part and relative to both, times the item's key: +1 speaks
fully for the dimension, -1 fully against. A dimension's score is the mean over its items. This is
self-report: what the model would answer, not what it does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from persona_probe.activations.contrast import under
from persona_probe.display import table
from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import Diagnostic, Item
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import next_token_log_probabilities


@dataclass(frozen=True)
class Profile:
    """One arm's answers.

    Attributes:
        arm: name of the arm.
        dimensions: in the diagnostic's order.
        items: what was asked.
        scores: keyed score of each item, in [-1, 1].
        option_mass: probability that the answer is either option; below 0.5 the model is not
            answering the question.
    """

    arm: str
    dimensions: tuple[str, ...]
    items: tuple[Item, ...]
    scores: Float[np.ndarray, " item"]
    option_mass: Float[np.ndarray, " item"]

    @property
    def by_dimension(self) -> dict[str, float]:
        """Mean score of each dimension; NaN for one without items."""
        of = np.array([item.dimension for item in self.items])
        return {
            d: float(self.scores[of == d].mean()) if (of == d).any() else float("nan")
            for d in self.dimensions
        }

    def _repr_html_(self) -> str:
        asked = Counter(item.dimension for item in self.items)
        rows = [[name, score, asked[name]] for name, score in self.by_dimension.items()]
        return table(["dimension", "mean score", "items"], rows, f"Profile: {self.arm}")

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per item, for the log."""
        return [
            {
                "arm": self.arm,
                "item": item.id,
                "dimension": item.dimension,
                "format": item.format,
                "family": item.family,
                "key": item.key,
                "score": float(score),
                "option_mass": float(mass),
            }
            for item, score, mass in zip(self.items, self.scores, self.option_mass, strict=True)
        ]


@dataclass(frozen=True)
class Questionnaire:
    """A diagnostic as one model's tokens, to be asked as often as one likes.

    Attributes:
        diagnostic: what is asked.
        contexts: of each item, the tokens up to where its answers part.
        options: of each item, the next token of either answer.
    """

    diagnostic: Diagnostic
    contexts: tuple[Tokens, ...]
    options: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model: ResidualModel, diagnostic: Diagnostic, system: str = "") -> "Questionnaire":
        """Tokenise every item under a system line; see `profiles`."""
        if not diagnostic.items:
            raise RequestError("the diagnostic has no items to score")
        questions = [_question(model, item, system) for item in diagnostic.items]
        return cls(diagnostic, tuple(c for c, _ in questions), tuple(o for _, o in questions))

    def ask(self, model: ResidualModel, arms: Sequence[Arm]) -> list[Profile]:
        """Score every item under every arm."""
        tokens = sorted({token for pair in self.options for token in pair})
        place = {token: number for number, token in enumerate(tokens)}
        log_p = next_token_log_probabilities(
            model, self.contexts, arms, tokens, description="Persona profile"
        )
        options = torch.tensor([[place[token] for token in pair] for pair in self.options])
        p = log_p.double().gather(2, options.expand(len(arms), -1, -1)).exp().numpy()
        mass = p.sum(axis=2)
        items = self.diagnostic.items
        scores = np.array([item.key for item in items]) * (p[..., 0] - p[..., 1]) / mass
        return [
            Profile(arm.name, self.diagnostic.dimensions, items, scores[a], mass[a])
            for a, arm in enumerate(arms)
        ]


def profiles(
    model: ResidualModel, diagnostic: Diagnostic, arms: Sequence[Arm], system: str = ""
) -> list[Profile]:
    """Score every item under every arm.

    Args:
        model: left as it was found.
        diagnostic: what is asked.
        arms: one profile each. A direction read at the last prompt token acts where the answer
            is decided, when the options differ in their first token.
        system: the system line; empty for none.

    Raises:
        RequestError: there is no item, or the options of one are equal to the tokenizer.
    """
    return Questionnaire.of(model, diagnostic, system).ask(model, arms)


def _question(model: ResidualModel, item: Item, system: str) -> tuple[Tokens, tuple[int, int]]:
    """The tokens up to where the two answers part, and each answer's next token."""
    asked = under(system, item.text, id=item.id, family=item.family)
    first, second = (
        model.encode(asked.with_reply(option), add_generation_prompt=False)
        for option in item.options
    )
    pairs = zip(first.ids, second.ids, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    ends = [t.response.stop if t.response else 0 for t in (first, second)]
    if shared >= min(ends):
        raise RequestError(
            f"diagnostic item {item.id!r}: no token tells {item.options[0]!r} from "
            f"{item.options[1]!r}; one answer must not begin with the other"
        )
    prompt_length = min(first.prompt_length, shared)
    context = Tokens(first.ids[:shared], prompt_length, None, ())
    return context, (first.ids[shared], second.ids[shared])
