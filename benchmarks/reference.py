"""What every method should have found: float64, one sequence at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.prompts import Prompt

POSITIONS = ("last_prompt_token", "response_mean", "last_token")


def write_reference(folder: str, prompts: Sequence[Prompt], device: str, path: Path) -> Path:
    """Compute and keep [prompt, site, d_model] at every position, unless it is there."""
    from safetensors.torch import save_file

    if not path.is_file():
        save_file(_residuals(folder, prompts, device), path)
        if device == "cuda":
            torch.cuda.empty_cache()  # The processes to come need the room.
    return path


@torch.no_grad()
def _residuals(folder: str, prompts: Sequence[Prompt], device: str) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).to(device).eval()
    seen: list[Tensor] = []
    for block in network.model.layers:
        block.register_forward_hook(lambda _block, _inputs, out: seen.append(out[0]))
    found: dict[str, list[Tensor]] = {position: [] for position in POSITIONS}
    for prompt in prompts:
        seen.clear()
        network.model(input_ids=torch.tensor([prompt.ids], device=device), use_cache=False)
        sites = torch.stack(seen)  # [site, token, d_model]
        found["last_prompt_token"].append(sites[:, prompt.prompt_length - 1])
        found["response_mean"].append(sites[:, prompt.prompt_length :].mean(dim=1))
        found["last_token"].append(sites[:, -1])
    return {position: torch.stack(rows).cpu() for position, rows in found.items()}


def largest_difference(
    values: Mapping[str, Tensor], path: Path, n_sites: int
) -> tuple[float, float]:
    """How far some values are from the reference.

    Args:
        values: position → [prompt, site, d_model], of some of the reference's prompts or more.
        path: of the reference.
        n_sites: compare the first so many.

    Returns:
        The largest difference of any number, and the root mean square of the reference's.
    """
    from safetensors.torch import load_file

    reference = load_file(path)
    gaps, squares = [], []
    for position, found in values.items():
        n = min(len(found), len(reference[position]))
        expected = reference[position][:n, :n_sites]
        gaps.append((found[:n, :n_sites].double() - expected).abs().max())
        squares.append(expected.pow(2).mean())
    return float(max(gaps)), float(torch.stack(squares).mean().sqrt())
