"""Named pieces of a conversation, given as characters of its messages, in the rendered text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.rendering import ChatFormat, Messages, find_message

Characters = tuple[int, int]  # [first, last) of a text


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the content of message number `message`, all from 0."""

    message: int
    start: int
    end: int


def spans_in(value: Any, contents: Sequence[str]) -> dict[str, tuple[Span, ...]]:
    """Check what a conversation's metadata says under "spans".

    Args:
        value: name → `{"message": i, "start": a, "end": b}`, or a list of such.
        contents: of the messages.

    Raises:
        RequestError: it is of another shape, or points to where there are no characters.
    """
    if not isinstance(value, Mapping):
        raise RequestError(f'"spans" must be an object of named spans, got {value!r}')
    return {
        str(name): tuple(
            _span(one, str(name), contents) for one in (given if _is_list(given) else [given])
        )
        for name, given in value.items()
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _span(value: Any, name: str, contents: Sequence[str]) -> Span:
    keys = ("message", "start", "end")
    if not isinstance(value, Mapping) or any(type(value.get(key)) is not int for key in keys):
        raise RequestError(
            f'span {name!r} must be {{"message": 0, "start": 0, "end": 1}}, got {value!r}'
        )
    span = Span(*(value[key] for key in keys))
    if not 0 <= span.message < len(contents):
        raise RequestError(
            f"span {name!r} is in message {span.message}, there are 0 to {len(contents) - 1}"
        )
    length = len(contents[span.message])
    if not 0 <= span.start < span.end <= length:
        raise RequestError(
            f"span {name!r} is characters {span.start} to {span.end} of message {span.message}, "
            f"which has {length}; end is exclusive and must be greater than start"
        )
    return span


def place_spans(
    chat_format: ChatFormat,
    spans: Mapping[str, Sequence[Span]],
    said: Messages,
    messages: Messages,
    text: str,
    add_generation_prompt: bool,
) -> dict[str, tuple[Characters, ...]]:
    """Where spans lie in the rendered text.

    Args:
        chat_format: what `text` was rendered with.
        spans: by name.
        said: the messages that the spans speak of.
        messages: the same as the template got them; see `rendering.accepted`.
        text: the rendered conversation.
        add_generation_prompt: as `text` was rendered.

    Raises:
        RequestError: the template changes a message so that a span is no more to be found.
    """
    moved = len(said) - len(messages)  # 1 where the system message went to the first user message

    def place(span: Span, name: str) -> Characters:
        content = said[span.message]["content"]
        index = max(span.message - moved, 0)
        # Within a message that two were joined to, the first is looked for from the left.
        first, last = find_message(chat_format, messages, index, text, add_generation_prompt)
        region = text[first:last]
        found = _within(content, region, from_right=span.message > 0)
        if found is not None:
            start, skipped, kept = found
            begin, end = max(span.start, skipped), min(span.end, skipped + kept)
            lost = content[span.start : begin] + content[end : span.end]
            if begin < end and not lost.strip():  # Blanks are what templates trim.
                return first + start + begin - skipped, first + start + end - skipped
        raise RequestError(
            f"span {name!r} is not in what the chat template makes of message {span.message}; "
            "leave it out, or mark words that the template keeps"
        )

    return {name: tuple(place(span, name) for span in several) for name, several in spans.items()}


def _within(content: str, region: str, from_right: bool) -> tuple[int, int, int] | None:
    """How a content lies in its part of the rendered text.

    Returns:
        Its first character in `region`, how many of its own characters precede that one, and how
        many are there. `None` if neither holds the other.
    """
    core = content.strip()
    for whole, leading in ((content, 0), (core, len(content) - len(content.lstrip()))):
        at = region.rfind(whole) if from_right else region.find(whole)
        if whole and at >= 0:
            return at, leading, len(whole)
    kept = region.strip()
    at = content.rfind(kept)
    if not kept or at < 0:
        return None
    return region.find(kept), at, len(kept)
