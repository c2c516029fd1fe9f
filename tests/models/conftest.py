"""Each tiny model twice: as ours, and as plain transformers to compare with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel


@dataclass(frozen=True)
class Pair:
    """One folder, loaded by us and by transformers."""

    folder: Path
    ours: "ResidualModel"
    plain: Any


@pytest.fixture(scope="session")
def pair(tiny_folders: Path) -> Pair:
    from transformers import AutoModelForCausalLM

    from persona_probe.models.loading import load_model

    plain = AutoModelForCausalLM.from_pretrained(tiny_folders).eval()
    return Pair(tiny_folders, load_model(str(tiny_folders)), plain)


@pytest.fixture(scope="session")
def rows() -> list[list[int]]:
    """Token ids of three different lengths."""
    return [[5, 17, 200, 31, 9], [42, 77, 301], [8, 9, 10, 11, 12, 13, 14, 250]]
