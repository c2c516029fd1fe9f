"""Files of directions: stable bytes, readable by anyone, and refused when they are wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from persona_probe.errors import RequestError, SiteMismatchError


@pytest.fixture
def directions(planted: Any) -> dict[str, Any]:
    from persona_probe.directions.families.parts import shared_part
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    finder = finder_named("mean_difference")
    several = {
        persona: find_directions(
            planted(seed).activations, finder, "hero", "neutral", persona=persona
        )
        for seed, persona in enumerate(["deontology", "virtue"])
    }
    return {**several, "shared": shared_part(several)}


def test_saving_loading_and_saving_again_gives_the_same_bytes(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    first = save_directions(directions, tmp_path / "a")
    loaded = load_directions(first)
    second = save_directions(loaded, tmp_path / "b")
    assert sorted(path.name for path in first.iterdir()) == [
        "README.md",
        "deontology.safetensors",
        "shared.safetensors",
        "virtue.safetensors",
    ]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    for persona, by_site in directions.items():
        for site, direction in by_site.items():
            back = loaded[persona][site]
            assert (back.unit == direction.unit).all()
            assert (back.raw == direction.raw).all()
            assert back.gap == direction.gap
            assert back.midpoint == pytest.approx(direction.midpoint, nan_ok=True)
            assert back.provenance == direction.provenance
            assert back.families_used == direction.families_used


def test_random_directions_come_back_bit_for_bit(tmp_path: Path, planted: Any) -> None:
    from persona_probe.directions.checks.controls import isotropic
    from persona_probe.directions.direction_set import load_directions, save_directions
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    activations = planted(d_model=257).activations
    found = find_directions(activations, finder_named("mean_difference"), "hero", "neutral")
    draws = {f"random-{i}": draw for i, draw in enumerate(isotropic(found, 50))}
    loaded = load_directions(save_directions(draws, tmp_path))
    for persona, by_site in draws.items():
        for site, direction in by_site.items():
            assert (loaded[persona][site].unit == direction.unit).all()


def test_plain_safetensors_reads_the_vector_and_the_header(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.models.site import Site

    save_directions(directions, tmp_path)
    with safe_open(tmp_path / "virtue.safetensors", framework="pt") as file:
        vector = file.get_tensor("site_1")
        header = json.loads(file.metadata()["persona_probe"])
    assert vector.dtype == torch.float32
    assert (vector == directions["virtue"][Site(1)].raw).all()
    assert header["d_model"] == 32
    assert header["directions"]["site_1"]["positive_label"] == "hero"


def test_one_file_can_be_loaded_alone(directions: dict[str, Any], tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    assert list(load_directions(tmp_path / "virtue.safetensors")) == ["virtue"]


def test_another_model_is_refused_unless_asked_for(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    shape = {"n_layers": 3, "d_model": 32, "chat_template_hash": "none"}
    other = SimpleNamespace(**shape, model_hash="other")
    with pytest.raises(SiteMismatchError, match="found in a model with hash"):
        load_directions(tmp_path, other)
    assert len(load_directions(tmp_path, other, allow_other_model=True)) == 3
    narrow = SimpleNamespace(**(shape | {"d_model": 16}), model_hash="0123456789abcdef")
    with pytest.raises(SiteMismatchError, match="16"):
        load_directions(tmp_path, narrow, allow_other_model=True)


Damage = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


def _nan(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["site_1"][3] = float("nan")


def _zero(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["site_1"][:] = 0


def _narrow(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["site_1"] = tensors["site_1"][:5].clone()


def _scalar(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["site_1"] = torch.tensor(1.0)


def _longer(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["site_1"] *= 2


def _no_gap(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    del header["directions"]["site_1"]["gap"]


def _no_tensor(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    del tensors["site_1"]


def _other_name(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors["layer1"] = tensors.pop("site_1")
    header["directions"]["layer1"] = header["directions"].pop("site_1")


def _other_format(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    header["format"] = "something/2"


def _list_header(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    header["directions"] = ["site_0", "site_1", "site_2"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, r"site_1: the vector holds NaN or infinity"),
        (_zero, r"site_1: the vector is zero"),
        (_narrow, r"site_1: shape \[5\], expected \[32\]"),
        (_scalar, r"site_1: shape \[\], expected \[32\]"),
        (_longer, r"site_1: the vector has length .*, its header says"),
        (_no_gap, r"it has no 'gap'"),
        (_no_tensor, r"name different sites"),
        (_other_name, r"'layer1' should be called site_<layer>"),
        (_other_format, r"has format 'something/2'"),
        (_list_header, r"another shape than ours"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    damage: Damage, message: str, directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    path = tmp_path / "virtue.safetensors"
    load_directions(path)
    with safe_open(path, framework="pt") as file:
        tensors = {f"site_{i}": file.get_tensor(f"site_{i}").clone() for i in range(3)}
        header = json.loads(file.metadata()["persona_probe"])
    damage(tensors, header)
    save_file(tensors, path, metadata={"persona_probe": json.dumps(header)})
    with pytest.raises(RequestError, match=message) as caught:
        load_directions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_other_tools_and_missing_files_are_refused(tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions

    with pytest.raises(RequestError, match="holds no directions"):
        load_directions(tmp_path)
    with pytest.raises(RequestError, match="no such file"):
        load_directions(tmp_path / "absent.safetensors")
    save_file({"site_0": torch.ones(4)}, tmp_path / "foreign.safetensors")
    with pytest.raises(RequestError, match="is not a file of directions"):
        load_directions(tmp_path)
    (tmp_path / "foreign.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(RequestError, match="not a safetensors file"):
        load_directions(tmp_path)


def test_a_header_that_is_not_json_is_refused(tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions

    path = tmp_path / "virtue.safetensors"
    save_file({"site_0": torch.ones(4)}, path, metadata={"persona_probe": "{"})
    with pytest.raises(RequestError, match="its header is not JSON"):
        load_directions(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_in_one_sentence(
    share: float, directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    path = tmp_path / "virtue.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RequestError, match="is not a safetensors file") as caught:
        load_directions(path)
    assert "\n" not in str(caught.value)


def test_a_changed_byte_anywhere_is_noticed(directions: dict[str, Any], tmp_path: Path) -> None:
    """A flipped bit can leave a finite vector of the right length, or a well-formed header."""
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    path = tmp_path / "virtue.safetensors"
    content = path.read_bytes()
    for at in range(3, len(content), 41):
        for bit in (1, 64):
            damaged = bytearray(content)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(RequestError) as caught:
                load_directions(path)
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)


def test_files_from_before_the_checksum_are_read(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    path = tmp_path / "virtue.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {f"site_{i}": file.get_tensor(f"site_{i}").clone() for i in range(3)}
        header = json.loads(file.metadata()["persona_probe"])
    del header["checksum"]
    for entry in header["directions"].values():
        for name in ("families_selected", "licence", "n_positive", "n_negative"):
            del entry[name]
    save_file(tensors, path, metadata={"persona_probe": json.dumps(header)})
    assert len(load_directions(path)["virtue"]) == 3


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions

    torch.save({"site_0": torch.ones(4)}, tmp_path / "virtue.safetensors")
    with pytest.raises(RequestError, match="not a safetensors file"):
        load_directions(tmp_path)
    (tmp_path / "virtue.safetensors").rename(tmp_path / "virtue.pt")
    with pytest.raises(RequestError, match="not a safetensors file"):
        load_directions(tmp_path / "virtue.pt")


def test_whole_numbers_are_no_vector(directions: dict[str, Any], tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    save_directions(directions, tmp_path)
    path = tmp_path / "virtue.safetensors"
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file({f"site_{i}": torch.ones(32, dtype=torch.int64) for i in range(3)}, path, header)
    with pytest.raises(RequestError, match="int64 numbers, expected float32"):
        load_directions(path)


def test_the_set_and_the_direction_save_and_load_themselves(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction import Direction
    from persona_probe.directions.direction_set import Directions
    from persona_probe.models.site import Site

    several = Directions(directions)
    assert Directions.load(several.save(tmp_path / "all")).keys() == directions.keys()
    one = directions["virtue"][Site(1)]
    back = Direction.load(one.save(tmp_path / "one"), "virtue", 1)
    assert torch.equal(back.unit, one.unit)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "README.md",
        "virtue.safetensors",
    ]


def test_thinking_mode_and_chat_template_are_checked_at_load(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    told = {"chat_template_hash": "abc", "thinking": False}
    read = {
        "virtue": {
            site: replace(d, provenance=d.provenance.with_(**told))
            for site, d in directions["virtue"].items()
        }
    }
    save_directions(read, tmp_path)
    space = {"n_layers": 3, "d_model": 32, "model_hash": "0123456789abcdef"}

    def model(thinking: bool | None, template: str = "abc") -> SimpleNamespace:
        chat_format = SimpleNamespace(thinking=thinking)
        return SimpleNamespace(**space, chat_template_hash=template, chat_format=chat_format)

    load_directions(tmp_path, model(False))
    for thinking, said in ((True, "asked for on"), (None, "asked for left to the template")):
        with pytest.raises(SiteMismatchError, match=f"thinking mode off, this model is {said}"):
            load_directions(tmp_path, model(thinking))
        load_directions(tmp_path, model(thinking), allow_other_model=True)
    with pytest.raises(SiteMismatchError, match="under a chat template with hash abc"):
        load_directions(tmp_path, model(False, "other"))


def test_one_direction_is_picked_by_name_and_layer(directions: dict[str, Any]) -> None:
    from persona_probe.directions.direction_set import direction_at
    from persona_probe.models.site import Site

    assert direction_at(directions, "virtue", 2) is directions["virtue"][Site(2)]
    with pytest.raises(RequestError, match="there are deontology, virtue, shared"):
        direction_at(directions, "vice", 2)
    with pytest.raises(RequestError, match="at layer 9; there are 0, 1, 2"):
        direction_at(directions, "virtue", 9)


def test_a_persona_that_cannot_name_a_file_is_refused_before_anything_is_written(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import save_directions

    bad = {"good": directions["virtue"], "../evil": directions["virtue"]}
    with pytest.raises(RequestError, match="cannot name a file"):
        save_directions(bad, tmp_path / "out")
    with pytest.raises(RequestError, match="no direction of 'empty'"):
        save_directions({"empty": {}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_holds_no_clock_and_no_path(directions: dict[str, Any], tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import save_directions

    save_directions(directions, tmp_path)
    assert str(tmp_path).encode() not in (tmp_path / "virtue.safetensors").read_bytes()


def test_a_turned_direction_keeps_its_sign_on_disk(
    directions: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    turned = {"virtue": {site: -d for site, d in directions["virtue"].items()}}
    loaded = load_directions(save_directions(turned, tmp_path))["virtue"]
    for site, direction in turned["virtue"].items():
        assert (loaded[site].unit == direction.unit).all()
        assert replace(loaded[site], unit=-loaded[site].unit).cosine(direction) < -0.999
