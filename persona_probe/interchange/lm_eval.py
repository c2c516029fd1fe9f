"""Steering files of lm-eval-harness: `--model steered --model_args steer_path=…`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.torch_file import dict_of, read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

KEYS = ("action", "steering_coefficient", "steering_vector")
# Where transformers keeps the blocks inside `model.base_model`, by model_type; "layers" elsewhere.
BLOCKS = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "gpt_bigcode", "codegen", "bloom", "falcon"), "h"),
    **dict.fromkeys(("opt",), "decoder.layers"),
    **dict.fromkeys(("mpt",), "blocks"),
}


@dataclass(frozen=True)
class LmEvalSteered:
    """`{hookpoint: {"action": "add", "steering_coefficient", "steering_vector", "bias": None}}`.

    A hookpoint is a module inside `model.base_model`: `layers.20`, or `h.20` in a GPT-2, for which
    --model must be named. Added at every position. One layer a file: the harness makes its "add"
    hooks in a loop whose variables they share, so each of them adds the *last* entry's vector.

    Survive: unit, site; the gap where the strength is 1 gap. Lost: everything else. Entries with
    the action "clamp" set a component instead of adding one and are refused.
    """

    name: ClassVar[str] = "lm_eval"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = "Hookpoint layers.N is the output of 0-based block N."

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        held = dict_of(read_torch(path), path)
        return [_found(f"{path}, {hookpoint!r}", hookpoint, held[hookpoint]) for hookpoint in held]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        site = additions.only_site(self.name)
        blocks = BLOCKS.get(additions.shape.model_type, "layers") if additions.shape else "layers"
        entry = {
            "action": "add",
            "steering_coefficient": 1.0,
            "steering_vector": additions.vectors()[site],
            "bias": None,
        }
        return [write_torch(path, {f"{blocks}.{site.layer}": entry})]


def _found(where: str, hookpoint: Any, entry: Any) -> Found:
    entry = dict_of(entry, where, KEYS)
    match = re.fullmatch(r"(?:[\w.]*\.)?(?:layers|h|blocks)\.(\d+)", str(hookpoint))
    if match is None:
        raise RequestError(f"{where} is not the output of a block; expected layers.20 or h.20")
    if entry["action"] != "add":
        raise RequestError(
            f"{where} has the action {entry['action']!r}, which adds no vector; only 'add' can be "
            "imported"
        )
    coefficient = entry["steering_coefficient"]
    if not isinstance(coefficient, int | float):
        raise RequestError(f"{where}: the coefficient must be a number, got {coefficient!r:.40}")
    vector = tensor_of(entry["steering_vector"], where, n_axes=1)
    return Found(Site(int(match[1])), coefficient * vector.double())
