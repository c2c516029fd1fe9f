"""The ways of reading activations that are compared, one file each.

A file has a function `prepare(folder, device, dtype)` that loads the model its own way. It runs
in the interpreter of its own environment, so it imports nothing of this project but `benchmarks`.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.prompts import Prompt

Values = dict[str, Tensor]
"""Position → [prompt, site, d_model], on the CPU."""


class Method(Protocol):
    """One way of reading the residual stream after every block.

    Attributes:
        positions: what each row is: "last_prompt_token", "response_mean", or "last_token".
    """

    positions: tuple[str, ...]

    def ready(self, prompts: Sequence[Prompt]) -> Any:
        """What `run` is given: token ids, wherever the method takes them. Not timed."""
        ...

    def run(self, prompts: Any, batch: int) -> Values:
        """Read all prompts, `batch` of them at a time."""
        ...


@dataclass(frozen=True)
class About:
    """What the table says of a method.

    Attributes:
        title: its row's first cell.
        environment: line of `peers.txt`; `None` is the project's own.
        package: whose version is shown.
        batches: rows at a time that are tried; ours chooses its batches itself.
        note: what a reader has to know.
        before_norm: whether the last block's output is given as it is, before the final norm.
    """

    title: str
    environment: str | None
    package: str
    batches: tuple[int, ...] = (1, 8, 16)
    note: str = ""
    before_norm: bool = True


OURS = "ours"
STOPS = "pools in the trace and stops before the head"

ABOUT = {
    OURS: About("persona_probe `capture`", None, "persona-probe", batches=(0,)),
    "output_hidden_states": About(
        "transformers `output_hidden_states`",
        None,
        "transformers",
        note="its last hidden state is after the final norm and is not compared",
        before_norm=False,
    ),
    "run_with_cache": About("TransformerBridge `run_with_cache`", None, "transformer-lens"),
    "nnsight": About("nnsight `trace`", "nnsight", "nnsight", note=STOPS),
    "nnterp": About(
        "nnterp `layers_output`",
        "nnterp",
        "nnterp",
        note=STOPS,
    ),
    "steering_vectors": About(
        "steering-vectors `record_activations`", "steering-vectors", "steering-vectors"
    ),
    "repeng": About(
        "repeng `batched_get_hiddens`",
        "repeng",
        "repeng",
        note="reads the last token only, and takes text; its last hidden state as transformers'",
        before_norm=False,
    ),
}


def method_named(name: str) -> "Callable[[str, str, str], Method]":
    """The `prepare` of a method's file."""
    prepare: Callable[[str, str, str], Method]
    prepare = importlib.import_module(f"benchmarks.methods.{name}").prepare
    return prepare


@dataclass(frozen=True)
class Batch:
    """Some prompts as transformers takes them, padded on the right."""

    prompts: Sequence[Prompt]
    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Prompt], device: str) -> "Batch":
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt.ids)
            mask[row, : len(prompt)] = 1
        return cls(prompts, ids.to(device), mask.to(device))

    def pooled(self, resid: Tensor) -> Tensor:
        """Last prompt token and response mean of one site: [prompt, 2, d_model]."""
        return torch.stack(
            [
                torch.stack([row[p.prompt_length - 1], row[p.prompt_length : len(p)].mean(dim=0)])
                for row, p in zip(resid.float(), self.prompts, strict=True)
            ]
        )


class InOrder:
    """A method that reads one padded batch at a time, in the order of the prompts."""

    positions: tuple[str, ...] = ("last_prompt_token", "response_mean")

    def __init__(self, read: Callable[[Batch], Tensor], device: str) -> None:
        self._read = read
        self._device = device

    def ready(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        return prompts

    @torch.no_grad()
    def run(self, prompts: Sequence[Prompt], batch: int) -> Values:
        chunks = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
        rows = torch.cat([self._read(Batch.of(chunk, self._device)).cpu() for chunk in chunks])
        return dict(zip(self.positions, rows.unbind(dim=1), strict=True))
