"""repeng: a control vector set on a `ControlModel`, once per configuration."""

from collections.abc import Sequence
from typing import Any

from benchmarks.steerers import Configuration, Ids, Replies, greedy, transformers_model


class Controlled:
    """`ControlModel.set_control` around `generate`."""

    def __init__(self, model: Any, device: str) -> None:
        from repeng import ControlModel

        self._plain, self._device = model, device
        self._model = ControlModel(model, list(range(model.config.num_hidden_layers)))

    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,  # noqa: ARG002  it knows one
        n_new: int,
        batch: int,
    ) -> Replies:
        from repeng import ControlVector

        replies = []
        for c in configurations:
            vector = ControlVector(self._plain.config.model_type, {c.layer: c.vector.numpy()})
            self._model.set_control(vector, 1.0)
            replies.append(greedy(self._model, prompts, n_new, batch, self._device))
            self._model.reset()
        return replies


def prepare(folder: str, device: str, dtype: str) -> Controlled:
    """Load the model with transformers."""
    return Controlled(transformers_model(folder, device, dtype), device)
