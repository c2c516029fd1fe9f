"""The persona profile: where a model stands on the diagnostic's dimensions.

An item's score lies in [-1, 1], +1 speaks fully for its dimension; a dimension's score is the mean
over its items. How an item is read depends on its format:

* Two short answers: the difference of their probabilities, each taken at the first token where the
  answers part and relative to both, times the item's key.
* A statement on a scale: the expected agreement over several forms; see `rating`.
* A scenario with two whole replies: tanh(m / 2) of the difference m of their log-probabilities per
  token, which is the same relative difference for the two replies' mean token probabilities.

The first two are self-report: what the model would say, not what it does. Scenarios let it act;
each of their replies is scored by itself, so that no order comes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from persona_probe.activations.contrast import under
from persona_probe.display import table
from persona_probe.errors import RequestError
from persona_probe.evaluation.rating import FORMS, Ratings, ReadBy, rate
from persona_probe.models.chat import Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import SCALE, SCENARIO, Channel, Diagnostic, Form, Item
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import next_token_log_probabilities, reply_log_probabilities


@dataclass(frozen=True)
class Profile:
    """One arm's answers.

    Attributes:
        arm: name of the arm.
        dimensions: in the diagnostic's order.
        items: what was asked.
        scores: keyed score of each item, in [-1, 1].
        option_mass: probability that the answer is any option; below 0.5 the model is not
            answering the question. 1 for scenarios, whose replies are given.
        forms: the forms of statements on a scale.
        by_form: agreement with each item in each form, not keyed; NaN for items without forms.
        in_words: which items were read from the words of the options, for want of option mass.
    """

    arm: str
    dimensions: tuple[str, ...]
    items: tuple[Item, ...]
    scores: Float[np.ndarray, " item"]
    option_mass: Float[np.ndarray, " item"]
    forms: tuple[Form, ...] = ()
    by_form: Float[np.ndarray, "item form"] | None = None
    in_words: Bool[np.ndarray, " item"] | None = None

    @property
    def by_dimension(self) -> dict[str, float]:
        """Mean score of each dimension; NaN for one without items."""
        of = np.array([item.dimension for item in self.items])
        return {
            d: float(self.scores[of == d].mean()) if (of == d).any() else float("nan")
            for d in self.dimensions
        }

    @property
    def agreement(self) -> Float[np.ndarray, " item"]:
        """Scores before keying: +1 always chose the first option, or agreed fully."""
        found: np.ndarray = self.scores * np.array([item.key for item in self.items])
        return found

    def of_channel(self, channel: Channel) -> "Profile":
        """The same profile over the items of one channel."""
        return self.where(np.array([item.channel == channel for item in self.items], dtype=bool))

    def over(self, dimensions: Sequence[str]) -> "Profile":
        """The same profile over some of its dimensions, in its own order."""
        kept = tuple(d for d in self.dimensions if d in dimensions)
        inside = np.array([item.dimension in kept for item in self.items], dtype=bool)
        return replace(self.where(inside), dimensions=kept)

    def where(self, chosen: Bool[np.ndarray, " item"]) -> "Profile":
        """The same profile over some of its items."""
        items = tuple(item for item, kept in zip(self.items, chosen, strict=True) if kept)
        return replace(
            self,
            items=items,
            scores=self.scores[chosen],
            option_mass=self.option_mass[chosen],
            by_form=None if self.by_form is None else self.by_form[chosen],
            in_words=None if self.in_words is None else self.in_words[chosen],
        )

    def _repr_html_(self) -> str:
        from persona_probe.evaluation.profile_match import dimension_scores

        asked = {item.dimension for item in self.items}
        scores = dimension_scores(self) if asked == set(self.dimensions) else self.by_dimension
        told = f"Profile: {self.arm}; from -1 to +1, 95 % over items"
        return table(["dimension", "mean score"], list(scores.items()), told)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per item, for the log."""
        words = np.zeros(len(self.items), bool) if self.in_words is None else self.in_words
        return [
            {
                "arm": self.arm,
                "item": item.id,
                "dimension": item.dimension,
                "channel": item.channel,
                "format": item.format,
                "family": item.family,
                "key": item.key,
                "score": float(score),
                "option_mass": float(mass),
                "in_words": bool(in_words),
            }
            for item, score, mass, in_words in zip(
                self.items, self.scores, self.option_mass, words, strict=True
            )
        ]


def joined(parts: Sequence[Profile]) -> Profile:
    """One arm's profile, of several parts of a diagnostic that were asked one by one."""
    first = parts[0]
    rated = [part.by_form for part in parts]
    words = [part.in_words for part in parts if part.in_words is not None]
    n_forms = max(len(part.forms) for part in parts)
    # Parts without statements on a scale have no forms.
    by_form = [
        np.full((len(part.items), n_forms), np.nan) if table is None else table
        for part, table in zip(parts, rated, strict=True)
    ]
    return replace(
        first,
        items=tuple(item for part in parts for item in part.items),
        scores=np.concatenate([part.scores for part in parts]),
        option_mass=np.concatenate([part.option_mass for part in parts]),
        forms=max((part.forms for part in parts), key=len),
        by_form=np.concatenate(by_form) if n_forms else None,
        in_words=np.concatenate(words) if len(words) == len(parts) else None,
    )


@dataclass(frozen=True)
class Questionnaire:
    """A diagnostic put to one model, to be asked as often as one likes.

    Attributes:
        diagnostic: what is asked.
        system: the system line; empty for none.
        contexts: of each item with two short answers, the tokens up to where they part.
        options: of each such item, the next token of either answer.
        n_forms: forms of each statement on a scale; multiples of four are balanced.
        read_by: how such statements are read; see `rating.rate`.
    """

    diagnostic: Diagnostic
    system: str
    contexts: tuple[Tokens, ...]
    options: tuple[tuple[int, int], ...]
    n_forms: int = FORMS
    read_by: ReadBy = "auto"

    @classmethod
    def of(
        cls,
        model: ResidualModel,
        diagnostic: Diagnostic,
        system: str = "",
        n_forms: int = FORMS,
        read_by: ReadBy = "auto",
    ) -> "Questionnaire":
        """Tokenise the items with short answers; see `profiles`."""
        if not diagnostic.items:
            raise RequestError("the diagnostic has no items to score")
        if diagnostic.scale is None and any(i.format == SCALE for i in diagnostic.items):
            raise RequestError("the diagnostic has statements to rate and no scale to rate them on")
        short = [item for item in diagnostic.items if item.format not in (SCALE, SCENARIO)]
        asked = [_question(model, item, system) for item in short]
        contexts, options = tuple(c for c, _ in asked), tuple(o for _, o in asked)
        return cls(diagnostic, system, contexts, options, n_forms, read_by)

    def ask(self, model: ResidualModel, arms: Sequence[Arm]) -> list[Profile]:
        """Score every item under every arm."""
        items = self.diagnostic.items
        keys = np.array([item.key for item in items])
        formats = np.array([item.format for item in items])
        rated, acted = formats == SCALE, formats == SCENARIO
        short = ~rated & ~acted
        scores, mass = np.zeros((len(arms), len(items))), np.ones((len(arms), len(items)))
        ratings = self._ratings(model, arms)
        by_form: list[np.ndarray | None] = [None] * len(arms)
        in_words = np.zeros(len(items), dtype=bool)
        if ratings is not None:
            scores[:, rated] = keys[rated] * ratings.agreement.mean(axis=2)
            mass[:, rated] = ratings.label_mass.mean(axis=2)
            in_words[rated] = ratings.in_words
            filled = np.full((len(arms), len(items), len(ratings.forms)), np.nan)
            filled[:, rated] = ratings.agreement
            by_form = list(filled)
        if acted.any():
            several = [item for item in items if item.format == SCENARIO]
            scores[:, acted] = keys[acted] * _leaning(model, several, arms, self.system)
        if short.any():
            p = self._short_answers(model, arms)
            mass[:, short] = p.sum(axis=2)
            scores[:, short] = keys[short] * (p[..., 0] - p[..., 1]) / mass[:, short]
        forms = ratings.forms if ratings is not None else ()
        dimensions = self.diagnostic.dimensions
        return [
            Profile(arm.name, dimensions, items, scores[a], mass[a], forms, by_form[a], in_words)
            for a, arm in enumerate(arms)
        ]

    def _ratings(self, model: ResidualModel, arms: Sequence[Arm]) -> Ratings | None:
        several = [item for item in self.diagnostic.items if item.format == SCALE]
        scale = self.diagnostic.scale
        if not several or scale is None:
            return None
        return rate(model, several, scale, arms, self.system, self.n_forms, self.read_by)

    def _short_answers(
        self, model: ResidualModel, arms: Sequence[Arm]
    ) -> Float[np.ndarray, "arm item 2"]:
        """Probability of both answers at the first token where they part."""
        tokens = sorted({token for pair in self.options for token in pair})
        place = {token: number for number, token in enumerate(tokens)}
        log_p = next_token_log_probabilities(
            model, self.contexts, arms, tokens, description="Persona profile"
        )
        options = torch.tensor([[place[token] for token in pair] for pair in self.options])
        p: np.ndarray = log_p.double().gather(2, options.expand(len(arms), -1, -1)).exp().numpy()
        return p


def profiles(
    model: ResidualModel,
    diagnostic: Diagnostic,
    arms: Sequence[Arm],
    system: str = "",
    n_forms: int = FORMS,
    read_by: ReadBy = "auto",
) -> list[Profile]:
    """Score every item under every arm.

    Args:
        model: left as it was found.
        diagnostic: what is asked.
        arms: one profile each. A direction read at the last prompt token acts where the answer
            is decided, when the options differ in their first token.
        system: the system line; empty for none.
        n_forms: forms of each statement on a scale; multiples of four are balanced.
        read_by: how such statements are read; see `rating.rate`.

    Raises:
        RequestError: there is no item, the options of one are equal to the tokenizer, or there are
            statements and no scale.
    """
    return Questionnaire.of(model, diagnostic, system, n_forms, read_by).ask(model, arms)


def _leaning(
    model: ResidualModel, items: Sequence[Item], arms: Sequence[Arm], system: str
) -> Float[np.ndarray, "arm item"]:
    """tanh(m / 2) for m nats per token by which the first reply is likelier than the second."""
    replies = [
        under(system, item.text, id=item.id).with_reply(option)
        for item in items
        for option in item.options
    ]
    scores = reply_log_probabilities(model, replies, arms, description="Scenarios")
    margin = scores.per_token.double().reshape(len(arms), len(items), 2)
    leaning: np.ndarray = torch.tanh((margin[..., 0] - margin[..., 1]) / 2).numpy()
    return leaning


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
