"""Replies of many arms, generated in common batches.

Every row of a batch carries its own interventions, so that a sweep over directions, strengths and
sites costs one pass instead of one per configuration. Prompts of like length are batched with all
their arms, rows that finish leave the batch, and a row's randomness depends on the seed, its
conversation and its sample number only: the same arm gives the same tokens alone or among others,
and arms are compared under the same randomness.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.batches import by_length
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.progress import progress
from persona_probe.provenance import content_hash
from persona_probe.steering.arm import Arm, Intervention, alike, require_distinct
from persona_probe.steering.completions import Completions
from persona_probe.steering.prefill import prefill, require_room
from persona_probe.steering.row_edits import RowEdits

__all__ = ["Arm", "Completion", "generate"]

# A cache that loses rows is copied, so rows leave a batch together, when a quarter has finished.
LEAVE_WHEN_FINISHED = 0.25


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


@dataclass(frozen=True)
class _Row:
    conversation: int
    arm: int
    sample: int
    prompt: tuple[int, ...]
    interventions: tuple[Intervention, ...]
    stream: str


def generate(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    arms: Sequence[Arm],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    n_samples: int = 1,
    batch_tokens: int = 32_768,
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
        batch_tokens: upper bound on the tokens of a batch, prompts and replies.
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
    prompts = [tuple(model.encode(c, add_generation_prompt=True).ids) for c in conversations]
    require_room(model, [len(p) for p in prompts], [c.id for c in conversations], max_new_tokens)
    streams = [_identity(conversation) for conversation in conversations]
    replies: dict[tuple[int, int, int], tuple[list[int], bool]] = {}
    total = len(arms) * len(conversations) * n_samples
    with torch.no_grad(), progress(description, total, "replies") as advance:
        for (adapter, share), members in alike(arms).items():
            rows = [
                _Row(c, a, s, prompts[c], arms[a].interventions, f"{seed}:{streams[c]}:{s}")
                for c in range(len(conversations))
                for a in members
                for s in range(n_samples)
            ]
            lengths = [len(row.prompt) + max_new_tokens for row in rows]
            with model.adapter(adapter):
                for batch in by_length(lengths, batch_tokens):
                    chosen = [rows[i] for i in batch]
                    found = _replies(model, chosen, max_new_tokens, temperature, share)
                    for row, reply in zip(chosen, found, strict=True):
                        replies[row.arm, row.conversation, row.sample] = reply
                    advance(len(chosen))
    return Completions(
        Completion(
            conversation_id=str(c) if conversation.id is None else conversation.id,
            arm=arm.name,
            sample=s,
            text=model.tokenizer.decode(replies[a, c, s][0], skip_special_tokens=True),
            token_ids=tuple(replies[a, c, s][0]),
            finished=replies[a, c, s][1],
        )
        for a, arm in enumerate(arms)
        for c, conversation in enumerate(conversations)
        for s in range(n_samples)
    )


def _replies(
    model: ResidualModel, rows: Sequence[_Row], room: int, temperature: float, share: bool
) -> list[tuple[list[int], bool]]:
    """Token ids of each row's reply, and whether it ended by itself."""
    replies: list[list[int]] = [[] for _ in rows]
    finished = [False] * len(rows)
    prompt_lengths = torch.tensor([len(row.prompt) for row in rows])
    edits = RowEdits(model, [row.interventions for row in rows], [row.prompt for row in rows])
    noise = _Noise([row.stream for row in rows]) if temperature > 0 else None
    present = torch.arange(len(rows))  # which of `rows` each row of the batch is
    prompts = [row.prompt for row in rows]
    with model.hooks(edits.hooks):
        logits, cache, mask = prefill(model, edits, prompts, prompt_lengths, share)
        for step in range(room):
            if noise is not None:
                logits = logits.float() / temperature + noise.draw(present, logits)
            tokens = logits.argmax(dim=-1).cpu()
            for row, token in zip(present.tolist(), tokens.tolist(), strict=True):
                if finished[row]:
                    continue
                if token in model.end_ids:
                    finished[row] = True
                else:
                    replies[row].append(token)
            going = torch.tensor([not finished[row] for row in present.tolist()])
            if step == room - 1 or not going.any():
                break
            if going.float().mean() <= 1 - LEAVE_WHEN_FINISHED:
                kept = going.nonzero(as_tuple=True)[0]
                edits.keep(kept, len(present))
                cache.batch_select_indices(kept.to(model.device))
                mask = mask[kept.to(model.device)]
                present, tokens, prompt_lengths = present[kept], tokens[kept], prompt_lengths[kept]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = prompt_lengths[:, None] + step
            edits.place(positions, prompt_lengths)
            logits, cache = model.decode_step(
                tokens[:, None].to(model.device), mask, positions.to(model.device), cache
            )
    return list(zip(replies, finished, strict=True))


class _Noise:
    """Gumbel noise per row and step: argmax(logits / T + noise) is a sample from the softmax.

    Rows of the same stream, which are the arms of one prompt, get the same noise, so that arms
    part ways only where their distributions do.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self._names = list(dict.fromkeys(streams))
        self._generators = [np.random.Generator(np.random.Philox(_key(n))) for n in self._names]
        place = {name: number for number, name in enumerate(self._names)}
        self._stream_of_row = torch.tensor([place[name] for name in streams])

    def draw(
        self, present: Int[Tensor, " row"], logits: Float[Tensor, "row vocab"]
    ) -> Float[Tensor, "row vocab"]:
        """The next step's noise for the rows that are present."""
        # Every stream advances at every step, so a row's noise depends on the step alone.
        exponential = np.stack([g.standard_exponential(logits.shape[1]) for g in self._generators])
        gumbel = torch.from_numpy(-np.log(exponential)).to(logits.device, torch.float32)
        return gumbel[self._stream_of_row[present].to(logits.device)]


def _identity(conversation: Conversation) -> str:
    """What a conversation's randomness hangs on: its id, else its text."""
    if conversation.id is not None:
        return conversation.id
    return content_hash([(message.role, message.content) for message in conversation.messages])


def _key(stream: str) -> int:
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "big")
