"""Probes of probity, as JSON; its `.pt` holds a pickled class and is not read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.files import read_json, write_json
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import NOT_A_NUMBER, Asked, Found
from persona_probe.interchange.torch_file import dict_of
from persona_probe.models.site import Site


@dataclass(frozen=True)
class Probity:
    """`{"vector": [d_model], "metadata": {hook_point, hook_layer, model_name, …}}`.

    `hook_point` is TransformerLens' name of a place. `blocks.l.hook_resid_post` is our site l,
    `blocks.l.hook_resid_pre` the site before it; other places are refused. The bias of a probe
    becomes the midpoint.

    Survive: unit, site, the persona (as `name`); the gap where the strength is 1 gap; the midpoint
    on import. Lost: the rest, the midpoint on export among it, because a probe of mean differences
    has no bias there.
    """

    name: ClassVar[str] = "probity"
    suffix: ClassVar[str] = ".json"
    convention: ClassVar[str] = (
        "blocks.l.hook_resid_post is the output of 0-based block l, hook_resid_pre that of l - 1."
    )

    def read(self, path: Path, asked: Asked) -> list[Found]:  # noqa: ARG002
        held = dict_of(read_json(path), path, ["vector", "metadata"])
        metadata = dict_of(held["metadata"], f"{path}, 'metadata'", ["hook_point"])
        vector = _vector(held["vector"], path)
        midpoint = _midpoint(metadata, vector, path)
        kind = metadata.get("probe_type")
        finder = kind if isinstance(kind, str) else None
        return [Found(_site(metadata["hook_point"], path), vector, midpoint, finder=finder)]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        site = additions.only_site(self.name)
        vector = additions.vectors()[site]
        metadata = {
            "model_name": additions.directions[site].provenance.model or "unknown_model",
            "hook_point": f"blocks.{site.layer}.hook_resid_post",
            "hook_layer": site.layer,
            "hook_head_index": None,
            "name": additions.persona,
            "vector_dimension": len(vector),
            "probe_type": "MeanDifferenceProbe",
            "dataset_path": None,
            "prepend_bos": False,
            "dtype": "float32",
            "has_bias": False,
            "description": additions.sentence(),
        }
        return [write_json(path, {"vector": vector.tolist(), "metadata": metadata})]


def _site(hook_point: Any, path: Path) -> Site:
    match = re.fullmatch(
        r"blocks\.(\d+)\.(hook_resid_pre|hook_resid_post|hook_out)", str(hook_point)
    )
    if match is None:
        raise RequestError(
            f"{path} was read at {hook_point!r}, which is not the residual stream between blocks"
        )
    layer = int(match[1]) - (match[2] == "hook_resid_pre")
    if layer < 0:
        raise RequestError(f"{path} was read at {hook_point!r}, the embeddings; there is no site")
    return Site(layer)


def _vector(value: Any, path: Path) -> Tensor:
    """The numbers of a list, or of the only list in a list: a linear probe has one output."""
    nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
    numbers = value[0] if nested else value
    if not isinstance(numbers, list) or not all(_is_number(number) for number in numbers):
        raise RequestError(f"{path}: 'vector' must be one list of numbers, got {value!r:.60}")
    return torch.tensor(numbers, dtype=torch.float64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _midpoint(metadata: dict[Any, Any], vector: Tensor, path: Path) -> float:
    """Where the probe's output is zero, along its vector; a bias of 0 may be one never fitted."""
    bias = metadata.get("bias")
    if isinstance(bias, list) and len(bias) == 1:
        (bias,) = bias
    if not metadata.get("has_bias") or not bias:
        return NOT_A_NUMBER
    if not _is_number(bias):
        raise RequestError(f"{path}: 'bias' must be one number, got {bias!r:.60}")
    return -float(bias) / float(vector.norm())
