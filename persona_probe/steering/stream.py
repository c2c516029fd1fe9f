"""Replies token by token, while they are made: a few rows side by side, for people who watch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.arm import Arm
from persona_probe.steering.prefill import prefill, require_room
from persona_probe.steering.row_edits import RowEdits

UNFINISHED = "\ufffd"  # what a tokenizer writes for the first bytes of a longer character


@dataclass(frozen=True)
class Piece:
    """One generated token.

    Attributes:
        row: which of the conversations it continues.
        token_id: the token.
        text: what it adds to the reply; empty while a character of several tokens is incomplete.
        projection: h·v of its own position at the direction's site, as later blocks read it, in
            residual units.
    """

    row: int
    token_id: int
    text: str
    projection: float


def stream(
    model: ResidualModel,
    turns: Sequence[tuple[Conversation, Arm]],
    direction: Direction,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[Piece]:
    """Reply to each conversation under its arm, all rows in step.

    At temperature 0 the tokens are those of `generate`. Samples are not: here all rows share the
    randomness of every step, so that they part ways only where their distributions do. Between two
    pieces the model is as it was; a reader may stop at any time.

    Args:
        model: left as it was found.
        turns: each conversation ends with a user's turn; all arms have one adapter.
        direction: to project on.
        max_new_tokens: room for a reply.
        temperature: 0 takes the likeliest token, 1 samples from the model.
        seed: of samples.

    Yields:
        The tokens of each reply in order, without the end token, as soon as the model has read
        them.

    Raises:
        RequestError: a conversation is too long or ends with a reply, or arguments make no sense.
        SiteMismatchError: a direction or a site does not fit the model.
    """
    _require_sensible(turns, max_new_tokens, temperature)
    direction.check_fits(model)
    prompts = [tuple(model.encode(c, add_generation_prompt=True).ids) for c, _ in turns]
    require_room(model, [len(p) for p in prompts], [c.id for c, _ in turns], max_new_tokens)
    rows = _Rows(model, prompts, [arm for _, arm in turns], direction)
    noise = np.random.default_rng(seed)
    texts = [_Text(model.tokenizer) for _ in turns]
    going = [True] * len(turns)
    logits = rows.begin()
    for _ in range(max_new_tokens):
        if temperature > 0:
            gumbel = torch.from_numpy(noise.gumbel(size=logits.shape[1]))
            logits = logits / temperature + gumbel.to(logits)
        tokens = logits.argmax(dim=-1).cpu()
        going = [
            on and t not in model.end_ids for on, t in zip(going, tokens.tolist(), strict=True)
        ]
        if not any(going):
            return
        logits, projections = rows.read(tokens)
        for row, token in enumerate(tokens.tolist()):
            if going[row]:
                yield Piece(row, token, texts[row].add(token), projections[row])


class _Rows:
    """A batch in the middle of its replies. Hooks are on only while the model runs."""

    def __init__(
        self,
        model: ResidualModel,
        prompts: Sequence[tuple[int, ...]],
        arms: Sequence[Arm],
        direction: Direction,
    ) -> None:
        self._model, self._prompts, self._arms = model, prompts, arms
        self._direction = direction
        self._edits = RowEdits(model, [arm.interventions for arm in arms], prompts)
        self._lengths = torch.tensor([len(p) for p in prompts])
        self._read = 0  # tokens of the replies

    def begin(self) -> Float[Tensor, "row vocab"]:
        """Logits of the first token."""
        share = all(arm.spares_the_prompt for arm in self._arms)
        with (
            torch.no_grad(),
            self._model.adapter(self._arms[0].adapter),
            self._model.hooks(self._edits.hooks),
        ):
            logits, self._cache, self._mask = prefill(
                self._model, self._edits, self._prompts, self._lengths, share
            )
        return logits

    def read(self, tokens: Int[Tensor, " row"]) -> tuple[Float[Tensor, "row vocab"], list[float]]:
        """Logits of the next token, and the projection of these."""
        seen: list[Tensor] = []

        def look(resid: Float[Tensor, "row 1 d_model"]) -> None:
            unit = self._direction.unit.to(resid.device, torch.float32)
            seen.append(resid[:, -1].float() @ unit)

        device = self._model.device
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        positions = self._lengths[:, None] + self._read
        self._edits.place(positions, self._lengths)
        # Hooks at one site run in order, so the projection is that of the steered residual.
        with (
            torch.no_grad(),
            self._model.adapter(self._arms[0].adapter),
            self._model.hooks([*self._edits.hooks, (self._direction.site, look)]),
        ):
            logits, self._cache = self._model.decode_step(
                tokens[:, None].to(device), self._mask, positions.to(device), self._cache
            )
        self._read += 1
        return logits, seen[0].tolist()


class _Text:
    """A reply that grows."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said = ""

    def add(self, token: int) -> str:
        """What is new. Decoded as a whole, since what a token says may depend on those before."""
        self._ids.append(token)
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if text.endswith(UNFINISHED) or not text.startswith(self._said):
            return ""
        new = text[len(self._said) :]
        self._said = text
        return new


def _require_sensible(
    turns: Sequence[tuple[Conversation, Arm]], max_new_tokens: int, temperature: float
) -> None:
    if not turns:
        raise RequestError("no conversation to reply to; give at least one")
    if max_new_tokens < 1 or not temperature >= 0:
        raise RequestError(
            "max_new_tokens must be at least 1 and temperature at least 0, got "
            f"{max_new_tokens} and {temperature}"
        )
    if len({arm.adapter for _, arm in turns}) > 1:
        raise RequestError("arms with different adapters cannot be streamed side by side")
    for conversation, _ in turns:
        if conversation.reply is not None:
            raise RequestError(f"conversation {conversation.id!r} ends with a reply already")
