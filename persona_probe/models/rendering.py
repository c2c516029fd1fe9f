"""Messages as the one text a model reads, through its chat template, and where they lie in it.

Tokenizers are duck-typed: anything with transformers' `chat_template` and `apply_chat_template`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.provenance import content_hash

NO_TEMPLATE = "none"
THINKING = "enable_thinking"  # what templates call the switch
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class ChatFormat:
    """How messages become the text that a model reads.

    Attributes:
        tokenizer: a transformers tokenizer, with a chat template or without.
        templated: use the tokenizer's chat template; without, messages are read as plain text.
        thinking: ask the template for thinking mode on or off; `None` is its own default.

    Raises:
        RequestError: thinking mode is asked for and the template has none.
    """

    tokenizer: Any
    templated: bool = True
    thinking: bool | None = None

    def __post_init__(self) -> None:
        if self.thinking is not None and not re.search(rf"\b{THINKING}\b", self.template or ""):
            name = getattr(self.tokenizer, "name_or_path", "") or type(self.tokenizer).__name__
            which = "the chat template of" if self.template else "plain text, as read by"
            raise RequestError(f"{which} {name} has no thinking mode; leave it out")

    @property
    def template(self) -> str | None:
        """Source of the template in use; of several, the one that is called "default"."""
        found = self.tokenizer.chat_template if self.templated else None
        if isinstance(found, dict):
            if "default" not in found:
                raise RequestError(
                    f"the tokenizer has the chat templates {', '.join(sorted(found))} and none is "
                    'called "default"; set `chat_template` to the one to use, or read plain text'
                )
            found = found["default"]
        return found or None

    @property
    def template_hash(self) -> str:
        """Identifies the template in use; "none" where there is none."""
        return content_hash(self.template) if self.template else NO_TEMPLATE


def tokenizer_hash(tokenizer: Any) -> str | None:
    """Hash of a fast tokenizer's serialised form: vocabulary, merges, marks; not the template.

    Without what a call may have left in it, how to pad and to truncate. Half a second for 128,000
    entries.
    """
    if not tokenizer.is_fast:
        return None
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    return content_hash(serialised | {"padding": None, "truncation": None})


def render(chat_format: ChatFormat, messages: Messages, add_generation_prompt: bool) -> str:
    """The text that is tokenised.

    Without a chat template it is plain text: a reply follows its prompt directly, so that nothing
    is put into a continuation; other turns start a new line.

    Raises:
        RequestError: the template refuses the messages; the message says why.
    """
    if not chat_format.template:
        return "".join(
            ("\n" if index and message["role"] != "assistant" else "") + message["content"]
            for index, message in enumerate(messages)
        )
    from jinja2 import TemplateError

    switches = {} if chat_format.thinking is None else {THINKING: chat_format.thinking}
    try:
        text = chat_format.tokenizer.apply_chat_template(
            messages,
            chat_template=chat_format.template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **switches,
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise RequestError(f"the chat template refuses the roles {roles}: {error}") from None
    return str(text)


def accepted(chat_format: ChatFormat, messages: Messages) -> Messages:
    """The messages as the template can say them.

    A leading system message goes in front of the first user message if the template has no
    system role: some refuse it aloud, others drop it in silence.
    """
    if messages[0]["role"] != "system" or not chat_format.template:
        return messages
    system = messages[0]["content"].strip()
    rendered = _try_render(chat_format, messages, add_generation_prompt=False)
    if rendered is not None and system in rendered:
        return messages
    if len(messages) < 2 or messages[1]["role"] != "user":
        raise RequestError(
            "the chat template has no system role, and no user message follows the system "
            "message that could carry it; put its text into a user message"
        )
    content = "\n\n".join(part for part in (system, messages[1]["content"]) if part)
    return [{"role": "user", "content": content}, *messages[2:]]


def find_message(
    chat_format: ChatFormat, messages: Messages, index: int, text: str, add_generation_prompt: bool
) -> tuple[int, int]:
    """First character, and the one after the last, of the words of message `index` in `text`.

    The conversation is rendered again with a foreign character in place of the message: what both
    texts share before and after it is not the message. This holds for templates that trim
    messages or strip thoughts from them, and for words that the template itself uses.
    """
    role = messages[index]["role"]
    foreign = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text)
    replaced = [*messages]
    replaced[index] = {"role": role, "content": foreign}
    around = render(chat_format, replaced, add_generation_prompt)
    before, found, after = around.partition(foreign)
    if not found:
        raise RequestError(
            f"the chat template drops {role} messages, so what they say cannot be read"
        )
    start = _shared(text, before)
    end = len(text) - _shared(text[::-1], after[::-1])
    return start, max(start, end)


def find_reply(
    chat_format: ChatFormat, messages: Messages, index: int, text: str, add_generation_prompt: bool
) -> tuple[int, int]:
    """The characters [first, last) of assistant message `index` in `text`, as a model writes it.

    Where the template has a generation prompt and puts it before this reply, the reply begins
    right after it, so that it is exactly what a model has to write.
    """
    start, end = find_message(chat_format, messages, index, text, add_generation_prompt)
    if index:
        without = _try_render(chat_format, messages[:index], add_generation_prompt=False)
        opening = _try_render(chat_format, messages[:index], add_generation_prompt=True)
        if opening is not None and opening != without and text.startswith(opening):
            start = len(opening)
    return start, max(start, end)


def _shared(text: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    if text.startswith(other):
        return len(other)
    pairs = zip(text, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def _try_render(
    chat_format: ChatFormat, messages: Messages, add_generation_prompt: bool
) -> str | None:
    """The text, or `None` where the template refuses the messages."""
    try:
        return render(chat_format, messages, add_generation_prompt)
    except RequestError:
        return None
