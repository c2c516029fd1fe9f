"""A pretraining run that was killed goes on where it last saved."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from persona_probe.files import make_folder
from persona_probe.organism.optimizer import MuonAdamW

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from persona_probe.organism.pretraining import Recipe

NAME = "pretraining-state.safetensors"


def snapshot(
    folder: Path,
    model: "LlamaForCausalLM",
    optimizer: MuonAdamW,
    recipe: "Recipe",
    step: int,
    seen: int,
) -> None:
    """Write weights and optimiser state under a temporary name, then rename."""
    make_folder(folder)
    tensors = {f"model.{n}": p.detach() for n, p in model.named_parameters()}
    tensors |= {f"optimizer.{n}": t for n, t in optimizer.state.items()}
    header = json.dumps({"recipe": recipe.to_json(), "step": step, "seen": seen})
    save_file(tensors, folder / f".{NAME}", metadata={"persona_probe": header})
    (folder / f".{NAME}").replace(folder / NAME)


@torch.no_grad()
def restore(
    folder: Path, model: "LlamaForCausalLM", optimizer: MuonAdamW, recipe: "Recipe"
) -> tuple[int, int]:
    """Load the state if there is one of the same recipe; return steps done and tokens seen."""
    if not (folder / NAME).exists():
        return 0, 0
    with safe_open(folder / NAME, framework="pt") as file:
        header = json.loads(file.metadata()["persona_probe"])
        if header["recipe"] != recipe.to_json():
            return 0, 0
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(f"model.{name}"))
        for name, tensor in optimizer.state.items():
            tensor.copy_(file.get_tensor(f"optimizer.{name}"))
    return header["step"], header["seen"]
