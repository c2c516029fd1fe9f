"""Prompts of different length for the tiny models."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from persona_probe.models.chat import Conversation


@pytest.fixture(scope="session")
def conversations() -> list["Conversation"]:
    """Prompts whose token counts all differ."""
    from persona_probe.models.chat import Conversation, Message

    texts = [
        "Please help me write a kind letter to my neighbour about the shared garden.",
        "How do I repair a bicycle tyre?",
        "Tell the truth.",
        "Would you rather tell the truth or spare a friend's feelings, one step at a time?",
    ]
    return [
        Conversation((Message("user", text),), id=f"p{number}") for number, text in enumerate(texts)
    ]
