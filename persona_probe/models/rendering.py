"""Messages as the one text a model reads, through its chat template, and where replies lie in it.

Tokenizers are duck-typed: anything with transformers' `chat_template` and `apply_chat_template`.
"""

from typing import Any

from persona_probe.errors import RequestError
from persona_probe.provenance import content_hash

NO_TEMPLATE = "none"
Messages = list[dict[str, str]]


def template_hash(tokenizer: Any) -> str:
    """Identify a tokenizer's chat template; "none" where it has none."""
    return content_hash(tokenizer.chat_template) if tokenizer.chat_template else NO_TEMPLATE


def render(tokenizer: Any, messages: Messages, add_generation_prompt: bool) -> str:
    """The text that is tokenised.

    Without a chat template it is plain text: a reply follows its prompt directly, so that nothing
    is put into a continuation; other turns start a new line.

    Raises:
        RequestError: the template refuses the messages; the message says why.
    """
    if not tokenizer.chat_template:
        return "".join(
            ("\n" if index and message["role"] != "assistant" else "") + message["content"]
            for index, message in enumerate(messages)
        )
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise RequestError(f"the chat template refuses the roles {roles}: {error}") from None
    return str(text)


def accepted(tokenizer: Any, messages: Messages) -> Messages:
    """The messages as the template can say them.

    A leading system message goes in front of the first user message if the template has no
    system role: some refuse it aloud, others drop it in silence.
    """
    if messages[0]["role"] != "system" or not tokenizer.chat_template:
        return messages
    system = messages[0]["content"].strip()
    rendered = _try_render(tokenizer, messages, add_generation_prompt=False)
    if rendered is not None and system in rendered:
        return messages
    if len(messages) < 2 or messages[1]["role"] != "user":
        raise RequestError(
            "the chat template has no system role, and no user message follows the system "
            "message that could carry it; put its text into a user message"
        )
    content = "\n\n".join(part for part in (system, messages[1]["content"]) if part)
    return [{"role": "user", "content": content}, *messages[2:]]


def find_reply(
    tokenizer: Any, messages: Messages, index: int, text: str, add_generation_prompt: bool
) -> tuple[int, int]:
    """First character, and the one after the last, of assistant message `index` in `text`.

    The conversation is rendered again with a foreign character in place of the reply: what both
    texts share before and after it is not the reply. This holds for templates that trim replies
    or strip thoughts from them. Where the template has a generation prompt and puts it before
    this reply, the reply begins right after it, so that it is exactly what a model has to write.
    """
    foreign = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in text)
    replaced = [*messages]
    replaced[index] = {"role": "assistant", "content": foreign}
    around = render(tokenizer, replaced, add_generation_prompt)
    before, found, after = around.partition(foreign)
    if not found:
        raise RequestError("the chat template drops assistant messages, so replies cannot be read")
    start = _shared(text, before)
    end = len(text) - _shared(text[::-1], after[::-1])
    if index:
        without = _try_render(tokenizer, messages[:index], add_generation_prompt=False)
        opening = _try_render(tokenizer, messages[:index], add_generation_prompt=True)
        if opening is not None and opening != without and text.startswith(opening):
            start = len(opening)
    return start, max(start, end)


def _shared(text: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    if text.startswith(other):
        return len(other)
    pairs = zip(text, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


def _try_render(tokenizer: Any, messages: Messages, add_generation_prompt: bool) -> str | None:
    """The text, or `None` where the template refuses the messages."""
    try:
        return render(tokenizer, messages, add_generation_prompt)
    except RequestError:
        return None
