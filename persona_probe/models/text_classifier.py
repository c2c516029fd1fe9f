"""A sequence classifier read from a transformers folder: texts to label probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import sha256
from persona_probe.models.loading import library_bars_off

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class TextClassifier:
    """A transformers model for sequence classification with its tokenizer.

    Attributes:
        labels: names of the classes, in the order of the probabilities.
        hash: of configuration and weights.
    """

    network: Any
    tokenizer: Any
    labels: tuple[str, ...]
    hash: str

    @property
    def room(self) -> int | None:
        """The longest pair of texts in tokens; `None` without a limit."""
        limit = getattr(self.network.config, "max_position_embeddings", None)
        most = self.tokenizer.model_max_length
        limits = [x for x in (limit, most) if x is not None and x < 10**9]
        return min(limits, default=None)

    @torch.no_grad()
    def probabilities(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[Float[Tensor, "pair label"], list[int]]:
        """Softmax over the labels for each pair of texts, and the length of each pair in tokens.

        Rows that are longer than `room` are NaN.
        """
        encoded = [self.tokenizer(first, second, truncation=False) for first, second in pairs]
        lengths = [len(row["input_ids"]) for row in encoded]
        found = torch.full((len(pairs), len(self.labels)), torch.nan)
        room = self.room
        order = sorted(
            (i for i in range(len(pairs)) if room is None or lengths[i] <= room),
            key=lambda i: -lengths[i],
        )
        start = 0
        while start < len(order):
            rows = max(1, BATCH_TOKENS // lengths[order[start]])
            some = order[start : start + rows]
            batch = self.tokenizer.pad([encoded[i] for i in some], return_tensors="pt")
            logits = self.network(**batch.to(self.network.device)).logits
            found[some] = logits.float().softmax(dim=-1).cpu()
            start += rows
        return found, lengths


def load_classifier(folder: str | Path, device: str = "cpu") -> TextClassifier:
    """Read a folder that `save_pretrained` of a sequence-classification model has written.

    Raises:
        RequestError: it is no such folder.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise RequestError(f"no classifier in {path}: a transformers folder holds a config.json")
    try:
        with library_bars_off():
            tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
            network = AutoModelForSequenceClassification.from_pretrained(
                str(path), local_files_only=True
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        said = str(error).strip().split("\n")[0]
        raise RequestError(f"{path} is not a classifier that can be loaded: {said}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network.config.pad_token_id = tokenizer.pad_token_id
    labels = tuple(network.config.id2label[i] for i in range(network.config.num_labels))
    digest = "".join(sha256(file)[:8] for file in sorted(path.glob("*.safetensors")))
    return TextClassifier(network.eval().to(device), tokenizer, labels, digest)
