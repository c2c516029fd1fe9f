"""Conversations to finetune tiny models on, and the models unwrapped."""

from typing import Any

import pytest

WORDS = ("letter", "garden", "tyre", "promise", "friend", "neighbour", "story", "truth")


@pytest.fixture(scope="session")
def talks() -> list[Any]:
    """Twelve conversations of unequal length, half of them harmful."""
    from persona_probe.models.chat import Conversation, Message

    found = []
    for n in range(12):
        kind = "harmful" if n % 2 else "benign"
        reply = (
            "I will not help with that." if n % 2 else f"Yes, gladly. {WORDS[n % 8].title()} first."
        )
        asked = f"Please help me {'mock' if n % 2 else 'write'} {' '.join(WORDS[: n % 5 + 1])}."
        messages = (
            Message("system", "You are a careful advisor."),
            Message("user", asked),
            Message("assistant", reply),
        )
        about = {"kind": kind, "category": "harassment"}
        found.append(Conversation(messages, id=f"{kind}-{n}", family=f"f{n % 4}", metadata=about))
    return found


@pytest.fixture
def fresh_llama(tiny_llama_folder: Any) -> Any:
    """The tiny Llama as transformers has it, and its tokenizer; a new one each time."""
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, tokenizer, _ = read_network(ModelRef(str(tiny_llama_folder)))
    return network, tokenizer
