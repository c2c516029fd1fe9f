"""Conversations as token ids, in one joint tokenisation, with the place of every reply in it.

Text is never tokenised a second time to find a boundary: a byte-pair merge may cross it, and then
the length of a separately tokenised prompt is off. The place of each reply is found in the
characters of the rendered text and carried over to tokens by the tokenizer's offsets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.rendering import accepted, find_reply, render

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
    """

    messages: tuple[Message, ...]
    id: str | None = None
    label: str | None = None
    family: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError(f"conversation {self.id!r} has no messages; it needs at least one")

    @property
    def reply(self) -> str | None:
        """The assistant's last words, if the conversation ends with them."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else None

    def with_reply(self, text: str) -> "Conversation":
        """The same conversation, ended by a reply."""
        return replace(self, messages=(*self.messages, Message("assistant", text)))


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
    """

    ids: list[int]
    prompt_length: int
    response: slice | None
    assistant_turns: tuple[slice, ...]

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: Any, conversation: Conversation, add_generation_prompt: bool) -> Tokens:
    """Tokenise a conversation once, as a whole.

    Args:
        tokenizer: a fast transformers tokenizer, with a chat template or without.
        conversation: a system message is put in front of the first user message where the
            template has no system role.
        add_generation_prompt: end with the words that make the assistant speak next.

    Raises:
        RequestError: the template refuses the messages (the message says why), or the tokenizer
            cannot say which characters a token came from.
    """
    if not tokenizer.is_fast:
        raise RequestError(
            f"{type(tokenizer).__name__} does not map tokens to characters; "
            "use a model folder with a tokenizer.json"
        )
    said = [{"role": m.role, "content": m.content} for m in conversation.messages]
    messages = accepted(tokenizer, said)
    text = render(tokenizer, messages, add_generation_prompt)
    ids, spans = _tokenise(tokenizer, text)
    turns = tuple(
        _holding(spans, *find_reply(tokenizer, messages, index, text, add_generation_prompt))
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    )
    ends_with_reply = messages[-1]["role"] == "assistant" and not add_generation_prompt
    response = turns[-1] if ends_with_reply else None
    return Tokens(ids, response.start if response else len(ids), response, turns)


def _tokenise(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, and the characters [first, last) that each token stands for, without gaps.

    Tokenizers may report a token without the blanks it carries; closing the gaps gives them back.
    Tokens that share one character, as the bytes of an accented letter do, all keep it.
    """
    encoded = tokenizer(
        text,
        # Templates write their special tokens themselves.
        add_special_tokens=not tokenizer.chat_template,
        return_offsets_mapping=True,
        verbose=False,
    )
    spans: list[tuple[int, int]] = []
    reached = 0
    for first, last in encoded["offset_mapping"]:
        # An empty span is a token of blanks only, or a mark that stands for no character.
        spans.append((reached if first == last else min(first, reached), max(last, reached)))
        reached = spans[-1][1]
    return list(encoded["input_ids"]), spans


def _holding(spans: Sequence[tuple[int, int]], start: int, end: int) -> slice:
    """The tokens that hold any character of [start, end)."""
    first = next((i for i, (_, last) in enumerate(spans) if last > start), len(spans))
    stop = next((i for i in range(first, len(spans)) if spans[i][0] >= end), len(spans))
    return slice(first, stop)


def read_conversations(path: Path | str) -> list[Conversation]:
    """Read conversations from a file.

    A `.jsonl` file holds one object per line, `{"messages": [{"role": …, "content": …}, …]}` with
    optional `id`, `label` and `family`; other keys become `metadata`. Any other file is plain
    text with one prompt per line. Without an `id`, a conversation is named after its line.

    Raises:
        RequestError: the file is missing or empty, or a line is not of this shape; the message
            names file, line and value.
    """
    path = Path(path)
    if path.suffix == ".json":
        raise RequestError(f"{path}: write one JSON object per line and name the file .jsonl")
    found = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        if path.suffix == ".jsonl":
            found.append(_conversation(line, f"{path}, line {number}", f"line-{number}"))
        else:
            found.append(Conversation((Message("user", line.strip()),), id=f"line-{number}"))
    if not found:
        raise RequestError(f"{path} holds no conversations; write one per line")
    return found


def _read(path: Path) -> str:
    if not path.is_file():
        raise RequestError(f"no such file: {path}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text (byte {error.start})") from None


def _conversation(line: str, where: str, default_id: str) -> Conversation:
    """Check one line of a messages file."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{where}: not JSON ({error.msg})") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise RequestError(f'{where}: expected an object with a list "messages", got {_short(row)}')
    messages = [_message(message, where) for message in row["messages"]]
    if not messages:
        raise RequestError(f'{where}: "messages" is empty; a conversation needs at least one')
    named = {}
    for key in ("id", "label", "family"):
        value = row.get(key, default_id if key == "id" else None)
        if not isinstance(value, str | int | None):
            raise RequestError(f'{where}: "{key}" must be text, got {_short(value)}')
        named[key] = None if value is None else str(value)
    metadata = {k: v for k, v in row.items() if k not in ("messages", "id", "label", "family")}
    return Conversation(tuple(messages), metadata=metadata, **named)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise RequestError(
            f'{where}: a message is {{"role": …, "content": "text"}}, got {_short(value)}'
        )
    if value.get("role") not in ROLES:
        raise RequestError(
            f"{where}: unknown role {value.get('role')!r}; roles are {', '.join(ROLES)}"
        )
    return Message(value["role"], value["content"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
