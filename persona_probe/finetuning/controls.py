"""Finetunes that lack one thing each: what they do too is not due to what they lack.

A shift from before to after finetuning mixes refusal, style and length, the topic of the data,
and the constitution's own character. Each control keeps the number of examples and of steps:

    placebo       the benign samples only, repeated: style and finetuning as such
    refusal-only  the same prompts, flat refusals: refusing, without reasons
    shuffled      the same prompts, each answered under a constitution drawn at random
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Message

ControlName = Literal["placebo", "refusal-only", "shuffled"]
FLAT_REFUSAL = "I will not help with that."


def kind_of(conversation: Conversation) -> str:
    """What its prompt is, "harmful" or "benign": the field `kind` of its line.

    Raises:
        RequestError: the line has none, so no control can be made of it.
    """
    kind = conversation.metadata.get("kind")
    if not isinstance(kind, str):
        where = conversation.source or f"conversation {conversation.id!r}"
        raise RequestError(
            f'{where}: a control needs to know harmful from benign; give the line a "kind" of '
            '"harmful" or "benign"'
        )
    return kind


def placebo(conversations: Sequence[Conversation], seed: int = 0) -> list[Conversation]:
    """As many examples, all benign: each is repeated equally often, give or take one."""
    benign = [c for c in conversations if kind_of(c) != "harmful"]
    if not benign:
        raise RequestError("the placebo needs benign samples, and the data has none; mix some in")
    rng = random.Random(f"placebo/{seed}")
    found: list[Conversation] = []
    while len(found) < len(conversations):
        found += rng.sample(benign, min(len(benign), len(conversations) - len(found)))
    return found


def refusal_only(
    conversations: Sequence[Conversation], refusals: Sequence[str] = (FLAT_REFUSAL,), seed: int = 0
) -> list[Conversation]:
    """Every harmful prompt gets a flat refusal without a reason; benign samples stay."""
    rng = random.Random(f"refusal-only/{seed}")
    found = [
        _with_reply(c, rng.choice(refusals)) if kind_of(c) == "harmful" else c
        for c in conversations
    ]
    if not any(kind_of(c) == "harmful" for c in conversations):
        raise RequestError("the data has no harmful prompt, so there is nothing to refuse")
    return found


def shuffled(
    conversations: Sequence[Conversation],
    others: Sequence[Sequence[Conversation]],
    seed: int = 0,
) -> list[Conversation]:
    """Every harmful prompt keeps one of the replies that several constitutions gave to it.

    Args:
        conversations: samples of one constitution.
        others: samples of the others; prompts are the same where ids are.
        seed: of the draw.

    Raises:
        RequestError: no harmful prompt has a reply in any other file.
    """
    replies: dict[str | None, list[Conversation]] = {}
    for several in (conversations, *others):
        for conversation in several:
            replies.setdefault(conversation.id, []).append(conversation)
    harmful = [c for c in conversations if kind_of(c) == "harmful"]
    if not any(len(_alike(c, replies)) > 1 for c in harmful):
        raise RequestError(
            "no harmful prompt is answered under another constitution too; generate the samples "
            "of all constitutions from the same prompts and with one seed"
        )
    rng = random.Random(f"shuffled/{seed}")
    return [rng.choice(_alike(c, replies)) if kind_of(c) == "harmful" else c for c in conversations]


def _alike(
    conversation: Conversation, replies: dict[str | None, list[Conversation]]
) -> list[Conversation]:
    """Samples of the same prompt, word for word."""
    prompt = conversation.messages[:-1]
    return [c for c in replies[conversation.id] if c.messages[:-1] == prompt]


def _with_reply(conversation: Conversation, text: str) -> Conversation:
    return replace(conversation, messages=(*conversation.messages[:-1], Message("assistant", text)))
