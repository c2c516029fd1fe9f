"""Replies of many arms, generated in common batches.

Every row of a batch carries its own interventions, so that a sweep over directions, strengths and
sites costs one pass instead of one per configuration. Prompts of like length are batched with all
their arms, rows that finish leave the batch, and a row's randomness depends on the seed, its
conversation and its sample number only: the same arm gives the same tokens alone or among others,
and arms are compared under the same randomness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from persona_probe.activations.budget import Budget
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.decoding import bytes_per_token
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import progress
from persona_probe.provenance import content_hash
from persona_probe.steering.arm import Arm, require_distinct
from persona_probe.steering.completions import Completions
from persona_probe.steering.joining import replies_joining
from persona_probe.steering.lockstep import replies_in_lockstep
from persona_probe.steering.prefill import require_room
from persona_probe.steering.replies import Key, Reply, Row
from persona_probe.steering.trunk import may_part

__all__ = ["Arm", "Completion", "generate"]

TOKENS = 16_384  # larger batches are no faster on a CPU
SHARE = 0.5
"""Of the free memory of an accelerator; the rest is for a pass itself and for fragments."""


@dataclass(frozen=True)
class Completion:
    """One generated reply.

    Attributes:
        conversation_id: the conversation's id, or its number as text when it has none.
        arm: name of the arm.
        sample: 0, 1, … for repeated sampling.
        text: the reply, without special tokens.
        token_ids: the generated tokens, without the end token.
        finished: whether the model ended the reply itself, within the room it had.
    """

    conversation_id: str
    arm: str
    sample: int
    text: str
    token_ids: tuple[int, ...]
    finished: bool


def generate(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    arms: Sequence[Arm],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    n_samples: int = 1,
    batch_tokens: int | None = None,
    description: str = "Generating",
) -> Completions:
    """Reply to every conversation under every arm.

    Args:
        model: left as it was found, also after an exception.
        conversations: each ends with a user's turn.
        arms: conditions, with names that differ.
        max_new_tokens: room for a reply.
        temperature: 0 takes the likeliest token, 1 samples from the model.
        seed: decides all samples; see the module's text.
        n_samples: replies per conversation and arm.
        batch_tokens: tokens held in memory at most, prompts and replies; by the device if not
            given. It decides speed and memory, not results.
        description: of the progress bar.

    Returns:
        One completion per arm, conversation and sample, in this order, the last one fastest.

    Raises:
        RequestError: arms or options make no sense.
        SiteMismatchError: a direction or a site does not fit the model.
    """
    require_distinct(arms)
    if max_new_tokens < 1 or n_samples < 1 or temperature < 0:
        raise RequestError(
            "max_new_tokens and n_samples must be at least 1 and temperature at least 0, got "
            f"{max_new_tokens}, {n_samples} and {temperature}"
        )
    if n_samples > 1 and temperature == 0:
        raise RequestError("several samples at temperature 0 are all alike; raise the temperature")
    for conversation in conversations:
        if conversation.reply is not None:
            raise RequestError(
                f"conversation {conversation.id!r} ends with a reply already; remove it, or score "
                "it with reply_log_probabilities()"
            )
        if not conversation.messages[-1].content.strip():
            raise RequestError(
                "a conversation ends with an empty prompt"
                + (f" ({conversation.id})" if conversation.id else "")
                + "; say something"
            )
    prompts = [tuple(model.encode(c, add_generation_prompt=True).ids) for c in conversations]
    require_room(model, [len(p) for p in prompts], [c.id for c in conversations], max_new_tokens)
    streams = [_identity(conversation) for conversation in conversations]
    rows = {
        (a, c, s): Row((a, c, s), prompts[c], arm.interventions, f"{seed}:{streams[c]}:{s}")
        for a, arm in enumerate(arms)
        for c in range(len(conversations))
        for s in range(n_samples)
    }
    longest = max((len(prompt) for prompt in prompts), default=0) + max_new_tokens
    joins = may_part(model, longest)
    budget = Budget(_tokens_that_fit(model, joins) if batch_tokens is None else batch_tokens)
    replies: dict[Key, Reply] = {}
    with torch.no_grad(), progress(description, len(rows), "replies") as advance:
        for adapter in dict.fromkeys(arm.adapter for arm in arms):
            some = [row for row in rows.values() if arms[row.key[0]].adapter == adapter]
            with model.adapter(adapter):
                run = replies_joining if joins else replies_in_lockstep
                replies |= run(model, some, max_new_tokens, temperature, budget, advance)
    return Completions(
        Completion(
            conversation_id=str(c) if conversation.id is None else conversation.id,
            arm=arm.name,
            sample=s,
            text=model.tokenizer.decode(replies[a, c, s].ids, skip_special_tokens=True),
            token_ids=replies[a, c, s].ids,
            finished=replies[a, c, s].finished,
        )
        for a, arm in enumerate(arms)
        for c, conversation in enumerate(conversations)
        for s in range(n_samples)
    )


def _tokens_that_fit(model: ResidualModel, joins: bool) -> int:
    """Tokens to hold in memory at once: by what is free on an accelerator."""
    if model.device.type != "cuda" or not joins:
        return TOKENS
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(TOKENS, int(SHARE * free / bytes_per_token(model)))


def _identity(conversation: Conversation) -> str:
    """What a conversation's randomness hangs on: its id, else its text."""
    if conversation.id is not None:
        return conversation.id
    return content_hash([(message.role, message.content) for message in conversation.messages])
