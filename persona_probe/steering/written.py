"""Replies written before and after finetuning, for the crossed design.

A difference of activations between two models that each read their own replies mixes what the
weights changed with what the text changed. Both replies read under both weights, the 2×2 of
{before, after} weights × {before, after} writer, separate the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from persona_probe.activations.extraction_run import Write
from persona_probe.errors import RequestError
from persona_probe.files import read_json, read_jsonl, write_json, write_jsonl
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.provenance import content_hash
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

CHUNK = 256
"""Conversations that are answered together, and then never again."""
WRITER = "written_by"


def writer(max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> Write:
    """`write_replies` with its settings, for an `ExtractionRun`."""
    return partial(write_replies, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def write_replies(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    states: Mapping[str, str | None],
    folder: Path,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Conversation]:
    """Let every state of a model answer every conversation.

    Replies go to `folder/replies-STATES-00000.jsonl` and so on, whole files; a second call goes on
    after the last one.

    Args:
        model: left as it was.
        conversations: without replies.
        states: name → LoRA adapter; `None` is the bare weights.
        folder: for the replies.
        max_new_tokens: room for a reply.
        temperature: 0 takes the likeliest token.
        seed: of samples.

    Returns:
        The conversations with replies, state by state; ids end in "@STATE", and the metadata
        names the state under "written_by". Empty replies are left out.

    Raises:
        RequestError: a conversation has a reply already, or the folder holds the replies to
            something else.
    """
    replied = [c.id for c in conversations if c.reply is not None]
    if replied:
        raise RequestError(
            f"conversation {replied[0]!r} has a reply already; the crossed design writes its own: "
            "leave the last assistant message out"
        )
    # Ids may repeat: the two sides of a contrast share theirs.
    numbered = [replace(c, id=str(n)) for n, c in enumerate(conversations)]
    name = "+".join(states)
    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "states": dict(states),
        "model_hash": model.model_hash,
        "prompts": content_hash([[c.id, *(m.content for m in c.messages)] for c in conversations]),
    }
    _require_same(folder / f"replies-{name}.json", settings)
    arms = [Arm(state, adapter=adapter) for state, adapter in states.items()]
    rows = []
    for start in range(0, len(numbered), CHUNK):
        path = folder / f"replies-{name}-{start // CHUNK:05d}.jsonl"
        if not path.exists():
            chunk = numbered[start : start + CHUNK]
            done = generate(
                model,
                chunk,
                arms,
                max_new_tokens,
                temperature,
                seed,
                description=f"Writing replies {start + 1}-{start + len(chunk)}",
            )
            said = [{"row": int(c.conversation_id), WRITER: c.arm, "reply": c.text} for c in done]
            write_jsonl(path, said)
        rows += read_jsonl(path)
    return [
        _replied(conversations[row["row"]], row, state)
        for state in states
        for row in rows
        if row[WRITER] == state and row["reply"]
    ]


def _replied(conversation: Conversation, row: dict[str, Any], state: str) -> Conversation:
    name = conversation.id if conversation.id is not None else str(row["row"])
    return replace(
        conversation.with_reply(row["reply"]),
        id=f"{name}@{state}",
        metadata={**conversation.metadata, WRITER: state},
    )


def _require_same(path: Path, settings: dict[str, object]) -> None:
    if not path.exists():
        write_json(path, settings)
        return
    found = read_json(path)
    different = next((key for key in settings if found.get(key) != settings[key]), None)
    if different is not None:
        raise RequestError(
            f"{path} holds replies made with {different} = {found.get(different)!r}, not "
            f"{settings[different]!r}; choose another folder"
        )
