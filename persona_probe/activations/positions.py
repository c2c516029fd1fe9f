"""Which tokens of a conversation an activation stands for.

A position turns a conversation's tokens into groups; the residuals of a group's tokens are
averaged into one row of activations. A new one is one function and one line in `POSITIONS`, or in
`WITH_ARGUMENT` if its name carries an argument, as in `response_first:5`.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Tokens

Group = tuple[slice, ...]  # tokens of one row: ascending, apart from each other, none empty
Position = Callable[[Tokens, Conversation], list[Group]]


def last_prompt_token(tokens: Tokens, _: Conversation) -> list[Group]:
    """The last token before the reply: where the reply is decided, and generation begins."""
    return _one_row([slice(max(tokens.prompt_length - 1, 0), tokens.prompt_length)])


def prompt_mean(tokens: Tokens, _: Conversation) -> list[Group]:
    """Everything before the reply, the template's own tokens included."""
    return _one_row([slice(0, tokens.prompt_length)])


def response_mean(tokens: Tokens, _: Conversation) -> list[Group]:
    """The reply, without the mark that ends it (persona vectors, arXiv:2507.21509)."""
    return _one_row([tokens.response or slice(0, 0)])


def assistant_turns(tokens: Tokens, _: Conversation) -> list[Group]:
    """One row per assistant message: its mean."""
    return [(turn,) for turn in tokens.assistant_turns if turn.stop > turn.start]


def all_tokens(tokens: Tokens, _: Conversation) -> list[Group]:
    """One row per token of the whole conversation, the template's own tokens included."""
    return [_token(i) for i in range(len(tokens))]


def response_tokens(tokens: Tokens, _: Conversation) -> list[Group]:
    """One row per token of the reply."""
    reply = tokens.response or slice(0, 0)
    return [_token(i) for i in range(reply.start, reply.stop)]


def response_first(argument: str) -> Position:
    """The mean of the reply's first K tokens, of all where it has fewer."""
    if not re.fullmatch(r"[1-9][0-9]*", argument):
        raise RequestError(
            f"position 'response_first:{argument}': K must be a whole number of tokens from 1 on, "
            "as in response_first:5"
        )
    count = int(argument)

    def position(tokens: Tokens, _: Conversation) -> list[Group]:
        reply = tokens.response or slice(0, 0)
        return _one_row([slice(reply.start, min(reply.stop, reply.start + count))])

    return position


def span(argument: str) -> Position:
    """The mean over all tokens of the span of this name in the conversation's metadata.

    See `Conversation.spans`. A token that the span cuts through is one of them.
    """
    if not argument:
        raise RequestError("position 'span:' lacks the span's name, as in span:answer")

    def position(tokens: Tokens, _: Conversation) -> list[Group]:
        return _one_row(tokens.holding(*where) for where in tokens.spans.get(argument, ()))

    return position


def regex(argument: str) -> Position:
    """The mean over all tokens that any match of the pattern touches, in the rendered text.

    Patterns are Python's `re`; `(?i)` at the beginning ignores case.
    """
    try:
        pattern = re.compile(argument)
    except re.error as error:
        raise RequestError(
            f"position 'regex:{argument}': {argument!r} is not a regular expression ({error})"
        ) from None
    if not argument:
        raise RequestError("position 'regex:' lacks a pattern, as in regex:promise[sd]?")

    def position(tokens: Tokens, _: Conversation) -> list[Group]:
        matches = (match.span() for match in pattern.finditer(tokens.text))
        return _one_row(tokens.holding(start, end) for start, end in matches if start < end)

    return position


POSITIONS: dict[str, Position] = {
    "last_prompt_token": last_prompt_token,
    "response_mean": response_mean,
    "prompt_mean": prompt_mean,
    "assistant_turns": assistant_turns,
    "all_tokens": all_tokens,
    "response_tokens": response_tokens,
}
# Keys are written as the choices are listed: the name, a colon, and what its argument is.
WITH_ARGUMENT: dict[str, Callable[[str], Position]] = {
    "response_first:K": response_first,
    "span:NAME": span,
    "regex:PATTERN": regex,
}


def position_named(name: str) -> Position:
    """A position by its name, with its argument behind a colon if it takes one.

    Raises:
        RequestError: there is none of this name (the message lists the choices), or its argument
            is wrong.
    """
    if name in POSITIONS:
        return POSITIONS[name]
    kind, colon, argument = name.partition(":")
    for choice, made in WITH_ARGUMENT.items():
        if colon and choice.partition(":")[0] == kind:
            return made(argument)
    choices = ", ".join([*POSITIONS, *WITH_ARGUMENT])
    raise RequestError(f"unknown position {name!r}; choose from {choices}")


def groups_of(tokens: Tokens, conversation: Conversation, position: str, who: str) -> list[Group]:
    """The groups of tokens at a position of one conversation, called `who` in messages.

    Raises:
        RequestError: there is nothing at this position, for instance no reply.
    """
    groups = position_named(position)(tokens, conversation)
    if not groups:
        raise RequestError(
            f"conversation {who} has no tokens at position {position!r}; "
            f"{_cure(tokens, position)} or choose another position"
        )
    return groups


def _cure(tokens: Tokens, position: str) -> str:
    kind = position.partition(":")[0]
    if kind == "span":
        return f"its metadata names {', '.join(tokens.spans) or 'no spans'}: add this one"
    if kind == "regex":
        return "change the pattern, leave the conversation out"
    return "give it a reply"


@cache
def _token(i: int) -> Group:
    """One object for all conversations: a million tokens to be read would be 200 MB of slices."""
    return (slice(i, i + 1),)


def _one_row(parts: Iterable[slice]) -> list[Group]:
    """One group of all tokens in any of the parts; no group if there are none."""
    merged: list[slice] = []
    for part in sorted((p for p in parts if p.start < p.stop), key=lambda p: (p.start, p.stop)):
        if merged and part.start <= merged[-1].stop:
            merged[-1] = slice(merged[-1].start, max(merged[-1].stop, part.stop))
        else:
            merged.append(part)
    return [tuple(merged)] if merged else []
