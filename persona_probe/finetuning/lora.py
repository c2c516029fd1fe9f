"""LoRA adapters as files: write one, and join two into one that equals both applied together.

The update of a projection is ΔW = s·B·A with A [rank, in], B [out, rank] and s = alpha / rank. Two
updates add up to one of the summed rank, exactly: A = [A1; A2], B = [s1·B1, s2·B2], scale 1.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from persona_probe.files import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS, CONFIG, PROVENANCE = "adapter_model.safetensors", "adapter_config.json", "provenance.json"
PREFIX = "base_model.model."


def factors(peft_model: "PeftModel", adapter: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Projection name → (A, B) with the scale folded into B."""
    found = {}
    for name, module in peft_model.base_model.model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            a = module.lora_A[adapter].weight.detach().clone()
            b = module.lora_B[adapter].weight.detach() * module.scaling[adapter]
            found[name] = (a, b)
    return found


def read_factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The same from an adapter folder."""
    config = read_json(folder / CONFIG)
    tensors, _ = read_tensors(folder / WEIGHTS)
    found = {}
    for key in sorted(k for k in tensors if k.endswith(".lora_A.weight")):
        name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors[key.replace(".lora_A.", ".lora_B.")]
        rank = config.get("rank_pattern", {}).get(name, config["r"])
        alpha = config.get("alpha_pattern", {}).get(name, config["lora_alpha"])
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        found[name] = (a, b * scale)
    return found


def concatenate(
    first: Mapping[str, tuple[Tensor, Tensor]], second: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """One set of factors whose update is the sum of both updates."""
    joined = dict(first)
    for name, (a, b) in second.items():
        if name in joined:
            a = torch.cat([joined[name][0], a])
            b = torch.cat([joined[name][1], b], dim=1)
        joined[name] = (a, b)
    return joined


def write_adapter(
    folder: Path,
    found: Mapping[str, tuple[Tensor, Tensor]],
    provenance: Mapping[str, Any],
    fan_in_fan_out: bool = False,
) -> Path:
    """Write factors (scale already in B) as an ordinary peft folder, with where they came from.

    `fan_in_fan_out` is for GPT-2, whose projections keep their weights as [in, out].
    """
    from peft import LoraConfig

    ranks = {name: a.shape[0] for name, (a, _) in found.items()}
    rank = max(ranks.values())
    others = {name: r for name, r in ranks.items() if r != rank}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(found),
        rank_pattern=others,
        alpha_pattern=dict(others),
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=fan_in_fan_out,
    ).to_dict()
    config |= {"target_modules": sorted(found), "inference_mode": True}
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    tensors = {}
    for name, (a, b) in found.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / CONFIG, json.loads(json.dumps(config, default=str)))
    write_json(folder / PROVENANCE, dict(provenance))
    return folder


def save_new(
    peft_model: "PeftModel",
    new: str,
    start: str | None,
    folder: Path,
    provenance: Mapping[str, Any],
) -> Path:
    """Write the adapter `new`, joined with `start` if it stands on one, as one peft folder."""
    config = peft_model.peft_config[new]
    if config.use_dora:  # Its magnitudes are no low-rank factors: as peft writes it.
        return _save_whole(peft_model, new, folder, provenance)
    found = factors(peft_model, new)
    joined = concatenate(factors(peft_model, start), found) if start else found
    return write_adapter(folder, joined, provenance, bool(config.fan_in_fan_out))


def _save_whole(
    peft_model: "PeftModel", name: str, folder: Path, provenance: Mapping[str, Any]
) -> Path:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        peft_model.save_pretrained(temporary, selected_adapters=[name])
        tensors, metadata = read_tensors(Path(temporary) / name / WEIGHTS)
        config = read_json(Path(temporary) / name / CONFIG)
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    write_tensors(folder / WEIGHTS, tensors, metadata)
    write_json(folder / CONFIG, config)
    write_json(folder / PROVENANCE, dict(provenance))
    return folder
