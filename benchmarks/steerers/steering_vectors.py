"""steering-vectors: a `SteeringVector` per configuration, applied around `generate`."""

from collections.abc import Sequence
from typing import Any

from benchmarks.steerers import Configuration, Ids, Replies, greedy, transformers_model


class Applied:
    """`SteeringVector.apply` as its documentation has it."""

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device

    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,  # noqa: ARG002  it knows one
        n_new: int,
        batch: int,
    ) -> Replies:
        from steering_vectors import SteeringVector

        replies = []
        for c in configurations:
            vector = SteeringVector({c.layer: c.vector}, "decoder_block")
            with vector.apply(self._model, multiplier=1.0):
                replies.append(greedy(self._model, prompts, n_new, batch, self._device))
        return replies


def prepare(folder: str, device: str, dtype: str) -> Applied:
    """Load the model with transformers."""
    return Applied(transformers_model(folder, device, dtype), device)
