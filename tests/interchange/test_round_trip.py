"""What comes back from a file that we wrote."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.interchange.writing import WRITABLE, export

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.shape import ModelShape
    from persona_probe.models.site import Site

    Directions = dict[Site, Direction]

KEEP_THE_MIDPOINT = {"axbench", "trait_interp"}


def back(name: str, path: Path, shape: "ModelShape", **known: Any) -> "dict[str, Directions]":
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions

    return import_directions(path, name, Asked("virtue", "prompt_in_H", shape=shape, **known))


@pytest.mark.parametrize("name", WRITABLE)
def test_unit_gap_and_site_come_back(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.models.site import Site

    path = export(name, tmp_path, virtue, [1], shape=llama_shape)
    known = {"layer": 1} if name == "axbench" else {}
    found = back(name, path, llama_shape, **known)
    assert list(found) == ["virtue"]
    ((site, direction),) = found["virtue"].items()
    assert site == direction.site == Site(1)
    assert direction.gap == pytest.approx(virtue[site].gap, rel=1e-6)
    torch.testing.assert_close(direction.unit, virtue[site].unit, atol=1e-6, rtol=0)
    if name in KEEP_THE_MIDPOINT:
        assert direction.midpoint == pytest.approx(virtue[site].midpoint, rel=1e-5)
    else:
        assert math.isnan(direction.midpoint)
    assert math.isnan(direction.norm)
    assert (direction.persona, direction.family) == ("virtue", "prompt_in_H")
    assert direction.provenance.model == llama_shape.label
    assert name in str(direction.provenance.command)


@pytest.mark.parametrize("name", [name for name in WRITABLE if "capping" not in name])
def test_a_negative_strength_turns_the_direction_round(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.models.site import Site

    path = export(name, tmp_path, virtue, [1], shape=llama_shape, strength=-2.0)
    known = {"layer": 1} if name == "axbench" else {}
    direction = back(name, path, llama_shape, **known)["virtue"][Site(1)]
    assert direction.gap == pytest.approx(2 * virtue[Site(1)].gap, rel=1e-6)
    assert direction.cosine(virtue[Site(1)]) == pytest.approx(-1.0)
    if name in KEEP_THE_MIDPOINT:
        assert direction.midpoint == pytest.approx(-virtue[Site(1)].midpoint, rel=1e-5)


def test_every_site_that_a_format_can_hold_comes_back(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    layers = {
        "gguf": [1, 2],
        "easysteer": [0, 1, 2],
        "persona_vectors": [0, 1],
        "assistant_axis": [0, 1, 2],
        "assistant_axis_capping": [0, 1, 2],
        "steering_vectors": [0, 1, 2],
        "trait_interp": [0, 1, 2],
    }
    for name, expected in layers.items():
        folder = tmp_path / name
        folder.mkdir()
        path = export(name, folder, virtue, expected, shape=llama_shape)
        found = back(name, path, llama_shape)["virtue"]
        assert [site.layer for site in found] == expected, name
        for site, direction in found.items():
            assert direction.cosine(virtue[site]) == pytest.approx(1.0), name


def test_what_persona_vectors_has_no_row_for_is_dropped(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    """The last row counts as read after the final norm, whoever wrote it."""
    path = export("persona_vectors", tmp_path, virtue, [1, 2], shape=llama_shape)
    rows = torch.load(path, weights_only=True)
    assert rows.shape == (4, 32)
    assert rows[3].any()
    assert not rows[0].any()
    assert [site.layer for site in back("persona_vectors", path, llama_shape)["virtue"]] == [1]


@pytest.mark.parametrize("name", WRITABLE)
def test_equal_directions_give_equal_bytes(
    name: str, virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    content = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        export(name, folder, virtue, [1], shape=llama_shape)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        content.append([(str(f.relative_to(folder)), f.read_bytes()) for f in files])
    assert content[0] == content[1]


def test_an_imported_direction_is_saved_and_loaded_like_any_other(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions
    from persona_probe.models.site import Site

    path = export("gguf", tmp_path, virtue, [1], shape=llama_shape)
    found = back("gguf", path, llama_shape)
    loaded = load_directions(save_directions(found, tmp_path / "ours"))
    assert torch.equal(loaded["virtue"][Site(1)].unit, found["virtue"][Site(1)].unit)


def test_trait_interp_keeps_finder_and_positions(
    virtue: "Directions", llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.models.site import Site

    path = export("trait_interp", tmp_path, virtue, [0, 1], shape=llama_shape)
    folder = path / "prompt_-1" / "residual" / "mean_diff"
    assert {file.name for file in folder.iterdir()} == {"layer0.pt", "layer1.pt", "metadata.json"}
    for named in (path, folder):
        direction = back("trait_interp", named, llama_shape)["virtue"][Site(1)]
        assert (direction.finder, direction.position) == ("mean_difference", "last_prompt_token")
