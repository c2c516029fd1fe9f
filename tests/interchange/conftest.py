"""Directions of one persona at every block of the tiny models, and those models without us."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from persona_probe.directions.direction import Direction
    from persona_probe.models.residual_model import ResidualModel
    from persona_probe.models.shape import ModelShape
    from persona_probe.models.site import Site


@pytest.fixture(scope="session")
def virtue(make_direction: "Callable[..., Direction]") -> "dict[Site, Direction]":
    """A direction at each of three blocks; no two agree in anything."""
    from persona_probe.models.site import Site

    return {
        Site(layer): dataclasses.replace(
            make_direction(layer=layer, seed=layer),
            persona="virtue",
            finder="mean_difference",
            gap=3.0 + layer,
            midpoint=0.25 - layer,
            norm=4.0 + layer,
        )
        for layer in range(3)
    }


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    """The folders of two models that keep their blocks in different places."""
    path: Path = request.getfixturevalue(f"tiny_{request.param}_folder")
    return path


@pytest.fixture(scope="session")
def ours(folder: Path) -> "ResidualModel":
    from persona_probe.models.loading import load_model

    return load_model(str(folder))


@pytest.fixture(scope="session")
def theirs(folder: Path) -> Any:
    """The same weights in plain transformers; whoever hooks it takes the hooks off again."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


@pytest.fixture(scope="session")
def shape(folder: Path) -> "ModelShape":
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    return shape_of(ModelRef(str(folder)))


@pytest.fixture(scope="session")
def llama_shape(tiny_llama_folder: Path) -> "ModelShape":
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    return shape_of(ModelRef(str(tiny_llama_folder)))
