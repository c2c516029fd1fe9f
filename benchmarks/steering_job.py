"""What a worker that generates is told, and the files that it reads."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.steerers import Configuration, Ids


@dataclass(frozen=True)
class SteeringJob:
    """One measurement of one method.

    Attributes:
        method: name of its file.
        schedule: "both" steers every position, "response" the generated ones.
        folder: of the model.
        setting: file with prompts and configurations.
        reference: file with what the replies should be.
        device: "cpu" or "cuda".
        dtype: of the weights.
        n_configurations: to run in each repetition, from the beginning.
        n_new: tokens per reply.
        batches: prompts at a time to try, for the method and for the floor.
        repetitions: of the kept batch.
    """

    method: str
    schedule: str
    folder: str
    setting: str
    reference: str
    device: str
    dtype: str
    n_configurations: int
    n_new: int
    batches: tuple[int, ...]
    repetitions: int

    def of(self, method: str, schedule: str, n_configurations: int) -> "SteeringJob":
        """The same for one method."""
        return replace(self, method=method, schedule=schedule, n_configurations=n_configurations)

    def compared_with(self, reference: Path) -> "SteeringJob":
        """The same with a reference."""
        return replace(self, reference=str(reference))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SteeringJob":
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "batches": tuple(fields["batches"])})


def save_setting(path: Path, prompts: Sequence[Ids], vectors: Sequence[tuple[int, Tensor]]) -> Path:
    """Write prompts and configurations where another interpreter can read them."""
    from safetensors.torch import save_file

    save_file(
        {
            "ids": torch.tensor([token for prompt in prompts for token in prompt]),
            "lengths": torch.tensor([len(prompt) for prompt in prompts]),
            "layers": torch.tensor([layer for layer, _ in vectors]),
            "vectors": torch.stack([vector.float() for _, vector in vectors]),
        },
        path,
    )
    return path


def load_setting(job: SteeringJob) -> tuple[list[Ids], list[Configuration]]:
    """The prompts, and the configurations of the job."""
    from safetensors.torch import load_file

    read = load_file(job.setting)
    prompts = [ids.tolist() for ids in torch.split(read["ids"], read["lengths"].tolist())]
    layers = read["layers"].tolist()
    configurations = [Configuration(*pair) for pair in zip(layers, read["vectors"], strict=True)]
    return prompts, configurations[: job.n_configurations]
