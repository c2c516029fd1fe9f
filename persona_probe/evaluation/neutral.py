"""Neutral text to measure side effects on: what the unsteered model says to permitted requests."""

from persona_probe.activations.contrast import request
from persona_probe.errors import PersonaProbeError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.pack import Pack
from persona_probe.personas.sampling import spread
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate


def benign_replies(
    model: ResidualModel,
    pack: Pack,
    adapter: str | None = None,
    n: int = 60,
    seed: int = 0,
    max_new_tokens: int | None = None,
) -> list[Conversation]:
    """Benign requests of the select part, each with the unsteered model's own greedy reply.

    Args:
        model: left as it was found.
        pack: whose benign requests are asked under its neutral system line.
        adapter: LoRA adapter that is on.
        n: most requests.
        seed: of the split.
        max_new_tokens: room for a reply; the pack's own if not given.

    Raises:
        PersonaProbeError: the model said nothing to any of them.
    """
    families = pack.split(seed).select
    prompts = spread(pack.suite.of(kind="benign", families=families).prompts, n)
    asked = [request(prompt, pack.neutral_system) for prompt in prompts]
    room = max_new_tokens or pack.max_new_tokens
    found = generate(
        model, asked, [Arm("unsteered", adapter=adapter)], room, description="Neutral replies"
    )
    replies = [c.with_reply(r.text) for c, r in zip(asked, found, strict=True) if r.text.strip()]
    if not replies:
        raise PersonaProbeError(
            f"{model.label} gave no reply to any of {len(prompts)} benign requests of the pack "
            f"{pack.name!r}, so there is no neutral text to measure side effects on"
        )
    return replies
