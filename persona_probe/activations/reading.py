"""What is to be read: conversations as token ids, and which of their tokens go into which row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from persona_probe.activations.positions import Group, groups_of, position_named
from persona_probe.activations.rows import Row
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Tokens
from persona_probe.provenance import content_hash

TooLong = Literal["refuse", "skip", "truncate"]
Nothing = Literal["refuse", "skip"]


@runtime_checkable
class Encoder(Protocol):
    """Whatever turns conversations into tokens: a model, or its tokenizer alone."""

    @property
    def context_length(self) -> int | None: ...

    @property
    def label(self) -> str: ...

    def encode(self, conversation: Conversation, add_generation_prompt: bool) -> Tokens: ...


@dataclass(frozen=True)
class Reading:
    """Sequences of token ids, and what is to be read of them.

    Attributes:
        ids: token ids per sequence.
        groups: position → per sequence, the groups of tokens of which each becomes a row.
        rows: position → what is known of each row, sequence by sequence.
        left_out: conversations that were skipped, with the reason.
    """

    ids: tuple[Int[np.ndarray, " _"], ...]
    groups: dict[str, list[list[Group]]]
    rows: dict[str, list[Row]]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> tuple[str, ...]:
        """Names of the positions, in the order asked for."""
        return tuple(self.groups)

    def of(self, sequences: Sequence[int]) -> "Reading":
        """Some of the sequences, in the order given."""
        first = self.first_rows
        return Reading(
            tuple(self.ids[i] for i in sequences),
            {p: [groups[i] for i in sequences] for p, groups in self.groups.items()},
            {
                p: [row for i in sequences for row in rows[first[p][i] : first[p][i + 1]]]
                for p, rows in self.rows.items()
            },
        )

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens per sequence."""
        return [len(ids) for ids in self.ids]

    @cached_property
    def first_rows(self) -> dict[str, list[int]]:
        """Position → the first row of each sequence, and the number of rows at the end."""
        return {
            position: [0, *accumulate(len(groups) for groups in per_sequence)]
            for position, per_sequence in self.groups.items()
        }

    @cached_property
    def hash(self) -> str:
        """Identifies the token ids, in order."""
        return content_hash([ids.tolist() for ids in self.ids])

    def groups_hash(self, position: str) -> str:
        """Identifies the tokens that rows stand for; named spans are not in the token ids."""
        parts = [
            [[part.start, part.stop] for part in group]
            for groups in self.groups[position]
            for group in groups
        ]
        return content_hash(parts)


def read(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    positions: Sequence[str],
    too_long: TooLong = "refuse",
    nothing_there: Nothing = "refuse",
) -> Reading:
    """Tokenise every conversation once, and find the positions in it.

    Conversations that end with a reply are read as they are; the others with the generation
    prompt behind them, so that their last token is where a reply would begin.

    Args:
        encoder: a model, or its tokenizer alone.
        conversations: in the order that rows will have.
        positions: names; see `activations.positions`.
        too_long: what becomes of conversations longer than the model's context. "truncate" keeps
            the first token and the last ones, where replies are; rows say how many went.
        nothing_there: what becomes of conversations that have nothing at one of the positions.

    Raises:
        RequestError: a conversation is too long or has nothing at a position (unless skipped),
            a position is unknown, or nothing is left to read.
    """
    if not (conversations and positions):
        raise RequestError("nothing to capture: give at least one conversation and position")
    for position in positions:
        position_named(position)
    ids: list[Int[np.ndarray, " _"]] = []
    groups: dict[str, list[list[Group]]] = {position: [] for position in positions}
    rows: dict[str, list[Row]] = {position: [] for position in positions}
    left_out = []
    for number, conversation in enumerate(conversations):
        name = conversation.id if conversation.id is not None else str(number)
        tokens = encoder.encode(conversation, add_generation_prompt=conversation.reply is None)
        gone = 0
        try:
            gone = _excess(encoder, tokens, name, too_long)
            found = {p: _groups(tokens, conversation, p, name, gone) for p in positions}
        except RequestError as error:
            over = encoder.context_length is not None and len(tokens) > encoder.context_length
            if "skip" not in ((too_long,) if over else (nothing_there,)):
                raise
            left_out.append(f"{name}: {error}")
            continue
        kept = tokens.ids if not gone else [tokens.ids[0], *tokens.ids[gone + 1 :]]
        ids.append(np.asarray(kept, dtype=np.int32))
        for position, here in found.items():
            groups[position].append([_shifted(group, gone) for group in here])
            rows[position] += _rows(conversation, name, tokens, here, gone)
    if not ids:
        raise RequestError(f"every conversation was left out, the first because of {left_out[0]}")
    return Reading(tuple(ids), groups, rows, tuple(left_out))


def _excess(encoder: Encoder, tokens: Tokens, name: str, too_long: TooLong) -> int:
    """How many tokens have to go."""
    limit = encoder.context_length
    if limit is None or len(tokens) <= limit:
        return 0
    if too_long == "truncate":
        return len(tokens) - limit
    raise RequestError(
        f"conversation {name!r} has {len(tokens)} tokens, the context of {encoder.label} is "
        f"{limit}; shorten it, or ask for long ones to be skipped or truncated"
    )


def _groups(
    tokens: Tokens, conversation: Conversation, position: str, name: str, gone: int
) -> list[Group]:
    """The groups at a position, without tokens that were cut away."""
    found = groups_of(tokens, conversation, position, repr(name))
    if not gone:
        return found
    kept = [
        tuple(slice(max(s.start, gone + 1), s.stop) for s in group if s.stop > gone + 1)
        for group in found
    ]
    kept = [group for group in kept if group]
    if not kept:
        raise RequestError(
            f"conversation {name!r} has no tokens at position {position!r} once it is cut to the "
            "model's context; shorten it yourself or skip it"
        )
    return kept


def _shifted(group: Group, gone: int) -> Group:
    """The group in tokens of what is left."""
    return tuple(slice(part.start - gone, part.stop - gone) for part in group)


def _rows(
    conversation: Conversation, name: str, tokens: Tokens, groups: Sequence[Group], gone: int
) -> list[Row]:
    """What is known of each row; one of several rows names its place and its own text."""
    metadata = {**conversation.metadata, **({"truncated": gone} if gone else {})}
    several = len(groups) > 1
    whole = "\n".join(message.content for message in conversation.messages)
    return [
        Row(
            id=f"{name}#{index}" if several else name,
            label=conversation.label or "",
            family=conversation.family or "",
            text=_text(tokens, group) if several else whole,
            metadata=metadata,
        )
        for index, group in enumerate(groups)
    ]


def _text(tokens: Tokens, group: Group) -> str:
    """The characters that a group of tokens stands for."""
    return "".join(
        tokens.text[tokens.offsets[part.start][0] : tokens.offsets[part.stop - 1][1]]
        for part in group
    )
