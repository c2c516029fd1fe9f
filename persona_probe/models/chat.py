"""Conversations as token ids, in one joint tokenisation, with the place of every reply in it.

Text is never tokenised a second time to find a boundary: a byte-pair merge may cross it, and then
the length of a separately tokenised prompt is off. The place of each reply is found in the
characters of the rendered text and carried over to tokens by the tokenizer's offsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from persona_probe.errors import RequestError
from persona_probe.models.rendering import ChatFormat, accepted, find_reply, render
from persona_probe.models.spans import Characters, Span, place_spans, spans_in

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn. `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and what is known about them.

    Attributes:
        messages: a last message from the assistant is a reply to be read, not to be continued.
        id: names the conversation in results.
        label: the class it belongs to when directions are found.
        family: prompts that share wording share a family; splits are by family.
        metadata: anything else its file said.
        rendered: the messages are what a template has made of them already, its special tokens
            included. They are read as they are, one right after the other.
        source: file and line it was read from, for messages about it.
    """

    messages: tuple[Message, ...]
    id: str | None = None
    label: str | None = None
    family: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rendered: bool = False
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError(f"conversation {self.id!r} has no messages; it needs at least one")

    @property
    def reply(self) -> str | None:
        """The assistant's last words, if the conversation ends with them."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else None

    @property
    def spans(self) -> dict[str, tuple[Span, ...]]:
        """The named spans of its metadata: `{"NAME": {"message": 0, "start": 3, "end": 9}}`.

        Characters [start, end) of one message's content; a name may also stand for a list of
        such.

        Raises:
            RequestError: the metadata has other spans than that.
        """
        return spans_in(self.metadata.get("spans", {}), [m.content for m in self.messages])

    def with_reply(self, text: str) -> "Conversation":
        """The same conversation, ended by a reply."""
        return replace(self, messages=(*self.messages, Message("assistant", text)))


def _no_offsets() -> Int[np.ndarray, "token 2"]:
    return np.zeros((0, 2), np.int32)


@dataclass(frozen=True)
class Tokens:
    """A conversation's token ids and where the assistant speaks in them.

    A token that a merge made from characters of both sides belongs to the reply, so that no
    position before `prompt_length` has seen any of it. The marks by which a template ends a turn
    are not part of the reply.

    Attributes:
        ids: of the whole rendered conversation.
        prompt_length: number of tokens up to and with the generation prompt of the last reply;
            all of them when the conversation does not end with a reply.
        response: tokens of the last message, if it is the assistant's.
        assistant_turns: tokens of every assistant message, in order.
        text: what was tokenised.
        offsets: the characters [first, last) of `text` that each token stands for, int32, without
            gaps. Tokens that share one character, as the bytes of an accented letter do, all keep
            it.
        spans: the conversation's named spans, as characters [first, last) of `text`.
    """

    ids: list[int]
    prompt_length: int
    response: slice | None
    assistant_turns: tuple[slice, ...]
    text: str = ""
    offsets: Int[np.ndarray, "token 2"] = field(default_factory=_no_offsets, compare=False)
    spans: Mapping[str, tuple[Characters, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def holding(self, start: int, end: int) -> slice:
        """The tokens that hold any character of [start, end) of `text`; may be empty."""
        return _holding(self.offsets, start, end)


def encode(
    chat_format: ChatFormat, conversation: Conversation, add_generation_prompt: bool
) -> Tokens:
    """Tokenise a conversation once, as a whole.

    Args:
        chat_format: of a fast transformers tokenizer, with a chat template or without.
        conversation: a system message is put in front of the first user message where the
            template has no system role.
        add_generation_prompt: end with the words that make the assistant speak next.

    Raises:
        RequestError: the template refuses the messages (the message says which and why), or the
            tokenizer cannot say which characters a token came from.
    """
    if not chat_format.tokenizer.is_fast:
        raise RequestError(
            f"{type(chat_format.tokenizer).__name__} does not map tokens to characters; "
            "use a model folder with a tokenizer.json"
        )
    try:
        return _encode(chat_format, conversation, add_generation_prompt)
    except RequestError as error:
        named = "" if conversation.id is None else f"conversation {conversation.id!r}: "
        where = f"{conversation.source}: " if conversation.source else named
        raise RequestError(f"{where}{error}") from None


def _encode(
    chat_format: ChatFormat, conversation: Conversation, add_generation_prompt: bool
) -> Tokens:
    if conversation.rendered:
        chat_format = replace(chat_format, templated=False, thinking=None)
    said = [{"role": m.role, "content": m.content} for m in conversation.messages]
    messages = accepted(chat_format, said)
    text = render(chat_format, messages, add_generation_prompt)
    _require_system_messages(messages, text)
    # Templates write their special tokens themselves.
    bare = bool(chat_format.template) or conversation.rendered
    ids, offsets = _tokenise(chat_format.tokenizer, text, add_special_tokens=not bare)
    turns = tuple(
        _holding(offsets, *find_reply(chat_format, messages, index, text, add_generation_prompt))
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    )
    ends_with_reply = messages[-1]["role"] == "assistant" and not add_generation_prompt
    response = turns[-1] if ends_with_reply else None
    spans = place_spans(
        chat_format, conversation.spans, said, messages, text, add_generation_prompt
    )
    prompt_length = response.start if response else len(ids)
    return Tokens(ids, prompt_length, response, turns, text, offsets, spans)


def _require_system_messages(messages: list[dict[str, str]], text: str) -> None:
    """Refuse templates that leave out, without a word, a system message that is not the first."""
    for index, message in enumerate(messages):
        if message["role"] == "system" and message["content"].strip() not in text:
            raise RequestError(
                f"the chat template drops the system message at place {index + 1}; "
                "put it first, or its text into a user message"
            )


def _tokenise(
    tokenizer: Any, text: str, add_special_tokens: bool
) -> tuple[list[int], Int[np.ndarray, "token 2"]]:
    """Ids, and the characters [first, last) that each token stands for, without gaps.

    Tokenizers may report a token without the blanks it carries; closing the gaps gives them back.
    """
    encoded = tokenizer(
        text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, verbose=False
    )
    said = np.array(encoded["offset_mapping"], dtype=np.int32).reshape(-1, 2)
    last = np.maximum.accumulate(said[:, 1])
    reached = np.concatenate([np.zeros(1, np.int32), last])[:-1]
    # An empty span is a token of blanks only, or a mark that stands for no character.
    empty = said[:, 0] == said[:, 1]
    first = np.where(empty, reached, np.minimum(said[:, 0], reached))
    return list(encoded["input_ids"]), np.stack([first, last], axis=1)


def _holding(offsets: Int[np.ndarray, "token 2"], start: int, end: int) -> slice:
    """The tokens that hold any character of [start, end); of no characters, no tokens."""
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    if start >= end:
        return slice(first, first)
    beyond = np.flatnonzero(offsets[first:, 0] >= end)
    return slice(first, first + int(beyond[0]) if len(beyond) else len(offsets))
