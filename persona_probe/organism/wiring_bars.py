"""Is the checkpoint an ordinary model folder: same logits everywhere, small enough to ship?"""

from pathlib import Path

import torch

from persona_probe.activations.contrast import under
from persona_probe.organism import bar
from persona_probe.organism.bar import Bar
from persona_probe.organism.trials import Trials

LARGEST = 16 * 2**20
N_PROMPTS = 20


def wiring(trials: Trials) -> list[Bar]:
    """Agreement with plain transformers, and size on disk."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(trials.folder, dtype=torch.float32).eval()
    worst = 0.0
    for prompt in trials.prompts("evaluate", "harmful")[:N_PROMPTS]:
        asked = under(trials.pack.neutral_system, prompt.text)
        ids = torch.tensor([trials.model.encode(asked, add_generation_prompt=True).ids])
        ones, positions = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
        with torch.no_grad(), trials.model.adapter(None):
            ours = trials.model.logits(ids, ones, positions, None)
            theirs = plain(input_ids=ids).logits
        worst = max(worst, float((ours - theirs).abs().max()))
    size = sum(path.stat().st_size for path in Path(trials.folder).rglob("*") if path.is_file())
    name = "TransformerLens and transformers logits differ at most by"
    return [
        bar.exact(name, worst, N_PROMPTS, "≤ 1e-4", worst <= 1e-4),
        bar.exact("shipped size, MiB", size / 2**20, 1, "≤ 16", size <= LARGEST),
    ]
