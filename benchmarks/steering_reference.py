"""What the replies should be: transformers in float64, with nothing but a hook by position."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.steerers import BOTH, RESPONSE, Configuration, Ids, Replies, padded
from benchmarks.steering_job import SteeringJob, load_setting

CONFIGURATIONS = 4  # from the beginning, which are spread over sites and strengths
BATCH = 8  # neighbours in length


def write_reference(job: SteeringJob, path: Path) -> Path:
    """Write the replies to every prompt under the first configurations, unless they are there.

    Beside each token stands its margin: by how much its logit exceeds the next best one's. Where a
    margin is of the size of rounding, another token is as right.
    """
    if path.is_file():
        return path
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float64)
    model = model.to(job.device).eval()
    prompts, configurations = load_setting(job)
    kept = {}
    for schedule in (BOTH, RESPONSE):
        found = [
            _replies(model, prompts[start : start + BATCH], c, schedule, job)
            for c in configurations[:CONFIGURATIONS]
            for start in range(0, len(prompts), BATCH)
        ]
        for name, pieces in zip(("tokens", "margins"), zip(*found, strict=True), strict=True):
            kept[f"{schedule}.{name}"] = torch.cat(pieces).view(-1, len(prompts), job.n_new)
    save_file(kept, path)
    return path


@torch.no_grad()
def _replies(
    model: Any, prompts: list[Ids], c: Configuration, schedule: str, job: SteeringJob
) -> tuple[Tensor, Tensor]:
    """Tokens and margins, [prompt, token] each."""
    added = c.vector.to(model.device, torch.float64)

    def edit(_module: Any, _inputs: Any, output: Any) -> Any:
        resid = output[0] if isinstance(output, tuple) else output
        reply = resid.shape[1] == 1  # the cache holds the rest
        steered = resid + added if reply or schedule == BOTH else resid
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    ids, mask = padded(prompts, job.device)
    tokens, margins, cache = [], [], None
    handle = model.model.layers[c.layer].register_forward_hook(edit)
    try:
        for _ in range(job.n_new):
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache, best = output.past_key_values, output.logits[:, -1].topk(2, dim=-1)
            tokens.append(best.indices[:, 0].cpu())
            margins.append((best.values[:, 0] - best.values[:, 1]).cpu())
            ids = best.indices[:, :1]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    finally:
        handle.remove()
    return torch.stack(tokens, dim=1), torch.stack(margins, dim=1)


def compared(replies: Replies, job: SteeringJob) -> dict[str, Any]:
    """How many replies are those of the reference, and how near a tie it was where one is not.

    Returns:
        Replies compared; those that are the same; and the largest margin of the reference at the
        first token that differs, in logits (`None` where nothing does).
    """
    from safetensors.torch import load_file

    read = load_file(job.reference)
    expected = read[f"{job.schedule}.tokens"][: len(replies)]
    margins = read[f"{job.schedule}.margins"][: len(replies)]
    differs = torch.tensor(replies[: len(expected)]) != expected
    parted = differs.any(dim=-1)
    first = differs.int().argmax(dim=-1, keepdim=True)
    at = margins.gather(-1, first)[..., 0][parted]
    return {
        "replies": parted.numel(),
        "same": int((~parted).sum()),
        "largest_margin": float(at.max()) if len(at) else None,
    }
