"""Persona vectors (Chen et al. 2025, arXiv:2507.21509): one tensor with a row for every state."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from persona_probe.errors import RequestError
from persona_probe.interchange.additions import Additions
from persona_probe.interchange.format import Asked, Found
from persona_probe.interchange.torch_file import read_torch, tensor_of, write_torch
from persona_probe.models.site import Site

# The file name says which tokens were averaged: evil_response_avg_diff.pt.
POSITIONS = {
    "response_avg": "response_mean",
    "prompt_avg": "prompt_mean",
    "prompt_last": "last_prompt_token",
}


@dataclass(frozen=True)
class PersonaVectors:
    """A bare float32 tensor [L + 1, d_model] in transformers' numbering of hidden states.

    Row 0 is the embeddings. Row k is the output of block k - 1, and where that code steers with
    "layer k" it adds row k after block k - 1. Row L was *read* after the final norm, where nothing
    can be added. So row 0 is zero on export and dropped on import, and row L, right for steering
    when we write it, is dropped on import because a file does not say who wrote it.

    Survive: unit, site except the last block's; the gap where the strength is 1 gap; positions,
    where the file name has them (`NAME_response_avg_diff.pt`). Lost: everything else.
    """

    name: ClassVar[str] = "persona_vectors"
    suffix: ClassVar[str] = ".pt"
    convention: ClassVar[str] = (
        "Row k of [L + 1, d_model] is the output of 0-based block k - 1; row 0 is the embeddings, "
        "and row L, read after the final norm, is dropped on import."
    )

    def read(self, path: Path, asked: Asked) -> list[Found]:
        rows = tensor_of(read_torch(path), path, n_axes=2)
        if asked.shape is not None and len(rows) != asked.shape.n_layers + 1:
            raise RequestError(
                f"{path} has {len(rows)} rows, expected {asked.shape.n_layers + 1}: one for the "
                f"embeddings and one for each of the {asked.shape.n_layers} blocks of "
                f"{asked.shape.label}"
            )
        match = re.search(r"_(response_avg|prompt_avg|prompt_last)_diff$", path.stem)
        position = POSITIONS[match[1]] if match else None
        return [
            Found(Site(row - 1), rows[row], finder="mean_difference", position=position)
            for row in range(1, len(rows) - 1)
            if rows[row].any()
        ]

    def write(self, path: Path, additions: Additions) -> list[Path]:
        return [write_torch(path, additions.rows(additions.depth(self.name) + 1, first=1))]
