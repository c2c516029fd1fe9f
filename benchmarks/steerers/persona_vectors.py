"""A forward hook that edits each call of a block, as persona_vectors describes its steerer.

Mode "all" adds to every position of a call, mode "response" to its last one.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.steerers import BOTH, Configuration, Ids, Replies, greedy, transformers_model


class HookedCalls:
    """One hook on one block, for one configuration."""

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device

    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,
        n_new: int,
        batch: int,
    ) -> Replies:
        replies = []
        for c in configurations:
            added = c.vector.to(self._model.device, self._model.dtype)

            def edit(_module: Any, _inputs: Any, output: Any, added: Tensor = added) -> Any:
                resid = output[0] if isinstance(output, tuple) else output
                if schedule == BOTH:
                    steered = resid + added
                else:
                    steered = resid.clone()
                    steered[:, -1] += added
                return (steered, *output[1:]) if isinstance(output, tuple) else steered

            handle = self._model.model.layers[c.layer].register_forward_hook(edit)
            try:
                replies.append(greedy(self._model, prompts, n_new, batch, self._device))
            finally:
                handle.remove()
        return replies


def prepare(folder: str, device: str, dtype: str) -> HookedCalls:
    """Load the model with transformers."""
    return HookedCalls(transformers_model(folder, device, dtype), device)
