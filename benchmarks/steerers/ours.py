"""persona_probe: every configuration in one call of `generate`, which makes its own batches."""

from collections.abc import Sequence
from typing import Any

from benchmarks.steerers import Configuration, Ids, Replies


class OneCall:
    """`generate` with one arm per configuration."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,
        n_new: int,
        batch: int,  # noqa: ARG002  its own business
    ) -> Replies:
        from persona_probe.models.chat import Conversation, Message
        from persona_probe.steering.generation import generate

        decode = self._model.tokenizer.decode
        asked = [Conversation((Message("user", decode(ids)),)) for ids in prompts]
        arms = [_arm(number, c, schedule) for number, c in enumerate(configurations)]
        found = iter(generate(self._model, asked, arms, n_new))
        return [[list(next(found).token_ids) for _ in prompts] for _ in configurations]


def _arm(number: int, c: Configuration, schedule: str) -> Any:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance
    from persona_probe.steering.add import Add
    from persona_probe.steering.arm import Arm, Intervention

    size = float(c.vector.norm())
    direction = Direction(
        unit=c.vector / size,
        gap=size,
        midpoint=0.0,
        site=Site(c.layer),
        finder="random_isotropic",
        family="random",
        persona=f"random-{number}",
        position="last_prompt_token",
        norm=size,
        provenance=Provenance(),
    )
    return Arm(str(number), (Intervention(direction, Add(size, "raw"), schedule),))


def prepare(folder: str, device: str, dtype: str) -> OneCall:
    """Load the model as the package does; plain text, since it has no chat template."""
    from persona_probe.models.loading import load_model

    model = load_model(folder, device=device, dtype=dtype, template=False)
    model.end_ids = ()
    return OneCall(model)
