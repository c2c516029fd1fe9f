"""Conversations as what is trained: token ids, and which of them the model learns to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, encode
from persona_probe.models.rendering import ChatFormat

UNLEARNT = -100  # transformers' mark of a target that no loss is taken on


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation; `learnt[i]` says whether predicting `ids[i]` is trained.

    `prompt_length` tokens come before the reply, the generation prompt among them.
    """

    ids: list[int]
    learnt: list[bool]
    prompt_length: int = 0


def example(
    tokenizer: Any, conversation: Conversation, templated: bool = True, limit: int | None = None
) -> Example:
    """Mark the tokens of the last reply, and the one that ends it, as learnt.

    Without the ending mark a finetuned model would not know when to stop. Plain text, which no
    template ends, gets the tokenizer's end token.

    Args:
        tokenizer: fast, with a chat template unless `templated` is off.
        conversation: ends with the reply to learn.
        templated: use the chat template.
        limit: longest conversation in tokens.

    Raises:
        RequestError: the conversation does not end with an assistant's reply, the reply is
            empty, or it is too long.
    """
    chat_format = ChatFormat(tokenizer, templated)
    tokens = encode(chat_format, conversation, add_generation_prompt=False)
    if tokens.response is None:
        raise RequestError(
            f"{_name(conversation)} does not end with an assistant message; "
            "supervised finetuning needs the reply it should learn"
        )
    if not conversation.messages[-1].content.strip():
        raise RequestError(
            f"{_name(conversation)} ends with an empty reply; write the reply to learn, or leave "
            "the conversation out"
        )
    ids = list(tokens.ids)
    if not chat_format.template and tokenizer.eos_token_id is not None:
        ids = [*ids[: tokens.response.stop], tokenizer.eos_token_id]
    stop = min(tokens.response.stop + 1, len(ids))
    if limit is not None and len(ids) > limit:
        raise RequestError(
            f"{_name(conversation)} has {len(ids)} tokens, the model reads {limit}; shorten it, "
            "or leave it out"
        )
    # Nothing predicts the very first token.
    learnt = [max(tokens.response.start, 1) <= i < stop for i in range(len(ids))]
    return Example(ids, learnt, tokens.response.start)


def collate(
    examples: Sequence[Example], pad: int
) -> tuple[Int[Tensor, "example pos"], Float[Tensor, "example pos"], Int[Tensor, "example pos"]]:
    """Right-padded ids, the loss mask, and the attention mask."""
    width = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), width), pad)
    mask, attention = torch.zeros(len(examples), width), torch.zeros(ids.shape, dtype=torch.long)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = torch.tensor(e.learnt, dtype=torch.float32)
        attention[row, : len(e.ids)] = 1
    return ids, mask, attention


def padded_batch(examples: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """One conversation per row: ids, attention mask, and what each position has to predict."""
    ids, mask, attention = collate(examples, pad)
    targets = torch.where(mask[:, 1:] > 0, ids[:, 1:], UNLEARNT)
    return {"input_ids": ids, "attention_mask": attention, "labels": targets}


def packed_batch(examples: Sequence[Example]) -> dict[str, Tensor]:
    """All conversations in one row, without padding; `labels` only where something is learnt.

    Positions start anew with each conversation, by which transformers keeps their attention
    apart. `logits_to_keep` holds the places whose prediction is learnt, in the order of `labels`.
    """
    ids = torch.tensor([i for e in examples for i in e.ids])
    positions = torch.cat([torch.arange(len(e.ids)) for e in examples])
    learnt = torch.tensor([on for e in examples for on in e.learnt])
    places = learnt.nonzero()[:, 0]
    return {
        "input_ids": ids[None],
        "position_ids": positions[None],
        "logits_to_keep": places - 1,
        "labels": ids[places][None],
    }


def positions_of(examples: Sequence[Example]) -> Int[Tensor, "example pos"]:
    """Position of each token in its conversation, -1 at padding: what schedules are read on."""
    width = max(len(e.ids) for e in examples)
    at = torch.arange(width).expand(len(examples), -1)
    lengths = torch.tensor([[len(e.ids)] for e in examples])
    return torch.where(at < lengths, at, -1)


def _name(conversation: Conversation) -> str:
    return conversation.source or f"conversation {conversation.id!r}"
