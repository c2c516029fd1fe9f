"""Random directions and prompts of different length for the tiny models."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.chat import Conversation

MakeDirection = Callable[..., "Direction"]


@pytest.fixture(scope="session")
def make_direction() -> MakeDirection:
    """A seeded random direction; a constant vector would be a no-op under LayerNorm."""

    def make(
        layer: int = 1, seed: int = 0, position: str = "last_prompt_token", d_model: int = 32
    ) -> "Direction":
        import torch

        from persona_probe.directions.direction import Direction
        from persona_probe.models.site import Site
        from persona_probe.provenance import Provenance

        raw = torch.randn(d_model, generator=torch.Generator().manual_seed(seed))
        return Direction(
            unit=raw / raw.norm(),
            gap=3.0,
            midpoint=0.0,
            site=Site(layer),
            finder="random_isotropic",
            family="prompt_in_H",
            persona=f"random-{seed}",
            position=position,
            norm=4.0,
            provenance=Provenance(),
        )

    return make


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
