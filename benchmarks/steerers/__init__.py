"""The ways of generating with a steered model that are compared, one file each.

A file has a function `prepare(folder, device, dtype)` that loads the model its own way. It runs
in the interpreter of its own environment, so it imports nothing of this project but `benchmarks`.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Ids = list[int]
Replies = list[list[Ids]]
"""Configuration → prompt → token ids of the reply."""

BOTH, RESPONSE = "both", "response"


@dataclass(frozen=True)
class Configuration:
    """One direction at one site with one strength.

    Attributes:
        layer: 0-based block whose output it is added to.
        vector: what is added, strength and all.
    """

    layer: int
    vector: Tensor


class Steerer(Protocol):
    """One way of generating. Greedy, and exactly as many tokens as asked for."""

    def run(
        self,
        prompts: Sequence[Ids],
        configurations: Sequence[Configuration],
        schedule: str,
        n_new: int,
        batch: int,
    ) -> Replies:
        """Reply to every prompt under every configuration, `batch` prompts at a time."""
        ...


@dataclass(frozen=True)
class About:
    """What the table says of a method.

    Attributes:
        title: its row's first cell.
        environment: line of `peers.txt`; `None` is the project's own.
        package: whose version is shown.
        schedules: what it can steer.
        exact: those of them that mean what ours mean, token for token.
        note: what a reader has to know.
    """

    title: str
    environment: str | None
    package: str
    schedules: tuple[str, ...] = (BOTH,)
    exact: tuple[str, ...] = (BOTH,)
    note: str = ""


OURS = "ours"

ABOUT = {
    OURS: About(
        "persona_probe `generate`",
        None,
        "persona-probe",
        schedules=(BOTH, RESPONSE),
        exact=(BOTH, RESPONSE),
    ),
    "persona_vectors": About(
        "a hook as persona_vectors describes it, around `transformers.generate`",
        None,
        "transformers",
        schedules=(BOTH, RESPONSE),
        note="written here from its description; its response mode edits the last position of "
        "every call, so the last prompt token too, and its replies are not compared",
    ),
    "steering_vectors": About(
        "steering-vectors `SteeringVector.apply`", "steering-vectors", "steering-vectors"
    ),
    "repeng": About("repeng `ControlModel`", "repeng", "repeng"),
    "transformer_bridge": About("TransformerBridge `generate`", None, "transformer-lens"),
}


def steerer_named(name: str) -> Callable[[str, str, str], Steerer]:
    """The `prepare` of a method's file."""
    prepare: Callable[[str, str, str], Steerer]
    prepare = importlib.import_module(f"benchmarks.steerers.{name}").prepare
    return prepare


def padded(prompts: Sequence[Ids], device: str) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of a batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def greedy(model: Any, prompts: Sequence[Ids], n_new: int, batch: int, device: str) -> list[Ids]:
    """`transformers.generate`, some prompts at a time, in their order."""
    replies: list[Ids] = []
    for start in range(0, len(prompts), batch):
        ids, mask = padded(prompts[start : start + batch], device)
        whole = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=n_new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        replies += whole[:, ids.shape[1] :].tolist()
    return replies


def transformers_model(folder: str, device: str, dtype: str) -> Any:
    """The model as transformers loads it; nothing ends a reply, so that all do the same work."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.generation_config.eos_token_id = None
    return model.to(device).eval()
