"""Full checkpoints one after the other, over the same token ids."""

import gc
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel


class Checkpoints:
    """Holds one model in memory, the one asked for last.

    "Before" and "after" are compared over the same token ids, so all of them must have one
    tokenizer and one chat template.

    Args:
        options: further arguments of `load_model`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._ref: ModelRef | None = None
        self._model: ResidualModel | None = None
        self._first: dict[str, str | None] = {}
        self._first_label = ""

    def __call__(self, ref: ModelRef) -> ResidualModel:
        """The model of a reference, loaded unless it is the one in memory.

        Raises:
            RequestError: its tokenizer or chat template is not that of the first one.
        """
        if self._model is None or ref != self._ref:
            self._ref, self._model = ref, None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            model = load_model(ref, **self._options)
            self._require_same(model)
            self._model = model
        return self._model

    def _require_same(self, model: ResidualModel) -> None:
        mine = {
            "tokenizers": model.tokenizer_hash,
            "chat templates": model.chat_template_hash,
        }
        if not self._first:
            self._first, self._first_label = mine, model.label
        for what, hashed in mine.items():
            if hashed != self._first[what]:
                raise RequestError(
                    f"the {what} of {self._first_label} ({self._first[what]}) and {model.label} "
                    f"({hashed}) differ, so they would not read the same token ids; give both "
                    "folders the same one"
                )
