"""A steering vector file holds exactly what is added, and refuses what it cannot hold."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.interchange.own_vector import read_steering_vector
from persona_probe.models.site import Site
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Intervention
from persona_probe.steering.vector_file import write_steering_vector

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction


def test_the_tensor_is_what_the_operation_adds_bit_for_bit(
    make_direction: "Callable[..., Direction]", tmp_path: Path
) -> None:
    direction = make_direction(layer=1)
    add = Add(0.7)
    path = write_steering_vector(
        tmp_path / "v.safetensors", Intervention(direction, add), adapter="tuned"
    )
    vector, about = read_steering_vector(path)
    resid = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
    parameters = torch.tensor(add.parameters(direction, direction.site))
    assert torch.equal(resid + vector, add.edit(resid, direction.unit, parameters))
    assert (about["layer"], about["adapter"], about["strength"]) == (1, "tuned", 0.7)
    assert about["positions"] == "last_prompt_token"


def test_a_steering_vector_is_imported_as_the_direction_that_it_adds(
    make_direction: "Callable[..., Direction]", tmp_path: Path
) -> None:
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions

    direction = make_direction(layer=1)
    path = write_steering_vector(
        tmp_path / "v.safetensors", Intervention(direction, Add(0.7)), adapter="tuned"
    )
    found = import_directions(path, "persona_probe", Asked("mine"))["mine"][Site(1)]
    torch.testing.assert_close(found.raw, read_steering_vector(path)[0])
    assert (found.position, found.finder) == ("last_prompt_token", direction.finder)
    assert found.norm == pytest.approx(direction.norm)  # so a strength in norms is what it was
    gaps = Intervention(direction, Add(0.7, "gap"))
    path = write_steering_vector(tmp_path / "gaps.safetensors", gaps, adapter="tuned")
    found = import_directions(path, "persona_probe", Asked("mine"))["mine"][Site(1)]
    assert math.isnan(found.norm)
    with pytest.raises(RequestError, match="belongs to layer 1 and --layer says 2"):
        import_directions(path, "persona_probe", Asked("mine", layer=2))


@pytest.mark.parametrize("wrong", ["ablation", "two sites"])
def test_anything_but_one_addition_at_one_site_is_refused(
    wrong: str, make_direction: "Callable[..., Direction]", tmp_path: Path
) -> None:
    direction = make_direction(layer=1)
    intervention = {
        "ablation": Intervention(direction, Ablate()),
        "two sites": Intervention(direction, Add(1.0), sites=(Site(0), Site(1))),
    }[wrong]
    with pytest.raises(RequestError, match="one addition at one site"):
        write_steering_vector(tmp_path / "v.safetensors", intervention, None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_directions_is_not_taken_for_a_steering_vector(
    make_direction: "Callable[..., Direction]", tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import save_directions

    direction = make_direction(layer=1)
    save_directions({"virtue": {direction.site: direction}}, tmp_path)
    with pytest.raises(RequestError, match="not a steering vector file: it holds"):
        read_steering_vector(tmp_path / "virtue.safetensors")
