"""repeng: a control vector set on a `ControlModel`, once per configuration."""

from collections.abc import Sequence
from typing import Any

from benchmarks.steerers import Configuration, Ids, Replies, greedy, transformers_model


class Controlled:
    """`ControlModel.set_control` around `generate`.

    It wants a vector for every layer that it wraps, so it wraps the one that is steered.
    """

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
        from repeng import ControlModel, ControlVector

        replies = []
        for c in configurations:
            controlled = ControlModel(self._model, [c.layer])
            vector = ControlVector(self._model.config.model_type, {c.layer: c.vector.numpy()})
            controlled.set_control(vector, 1.0)
            replies.append(greedy(controlled, prompts, n_new, batch, self._device))
            controlled.unwrap()
        return replies


def prepare(folder: str, device: str, dtype: str) -> Controlled:
    """Load the model with transformers."""
    return Controlled(transformers_model(folder, device, dtype), device)
