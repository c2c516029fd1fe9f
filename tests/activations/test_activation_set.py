from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from persona_probe.activations.activation_set import ActivationSet


@pytest.fixture
def activations() -> "ActivationSet":
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    return ActivationSet(
        values=torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)),
        sites=(Site(1), Site(10)),
        position="response_mean",
        ids=("a", "b", "c", "d"),
        labels=("kind", "blunt", "kind", ""),
        families=("f", "f", "g", "g"),
        provenance=Provenance(model="tiny", seed=3),
        texts=("one", "two", "drei", "fünf\u2028"),
    )


def test_a_site_is_found_by_name_not_by_index(activations: "ActivationSet") -> None:
    from persona_probe.errors import SiteMismatchError
    from persona_probe.models.site import Site

    assert activations.site(Site(10)).equal(activations.values[:, 1])
    with pytest.raises(SiteMismatchError, match="layer 0, only at layers 1, 10"):
        activations.site(Site(0))


def test_where_keeps_rows_together(activations: "ActivationSet") -> None:
    kind = activations.where(labels=["kind"])
    assert (kind.ids, kind.families, kind.texts) == (("a", "c"), ("f", "g"), ("one", "drei"))
    assert kind.values.equal(activations.values[[0, 2]])
    assert activations.where(labels=["kind"], families=["g"]).ids == ("c",)
    assert len(activations.where(families=[])) == 0
    assert activations.where().ids == activations.ids


@pytest.mark.parametrize("rows", [4, 1])
def test_what_is_saved_is_loaded(activations: "ActivationSet", tmp_path: Path, rows: int) -> None:
    from persona_probe.activations.activation_set import ActivationSet

    kept = activations if rows == 4 else activations.where(families=["g"], labels=["kind"])
    kept.save(tmp_path)
    loaded = ActivationSet.load(tmp_path)
    assert loaded.values.equal(kept.values)
    assert replace(loaded, values=kept.values).__dict__ == kept.__dict__


def test_it_is_read_with_plain_safetensors(activations: "ActivationSet", tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(activations.save(tmp_path))
    assert set(tensors) == {"site_1", "site_10"}
    assert tensors["site_10"].equal(activations.values[:, 1])


def test_columns_of_another_length_are_refused(activations: "ActivationSet") -> None:
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match="4 activations, but 3 labels"):
        replace(activations, labels=("kind", "blunt", "kind"))
    with pytest.raises(RequestError, match="2 sites, but 1"):
        replace(activations, sites=activations.sites[:1])


def test_damaged_files_are_refused(activations: "ActivationSet", tmp_path: Path) -> None:
    import torch

    from persona_probe.activations.activation_set import FILE, HEADER, ActivationSet
    from persona_probe.errors import RequestError
    from persona_probe.files import read_tensors, write_tensors

    with pytest.raises(RequestError, match="no such file"):
        ActivationSet.load(tmp_path)
    tensors, metadata = read_tensors(activations.save(tmp_path))
    nan = tensors["site_10"].clone()
    nan[2, 3] = float("nan")
    wrong = [
        ({}, metadata, "holds tensors of shapes"),
        (tensors | {"site_10": tensors["site_10"][:2]}, metadata, "holds tensors of shapes"),
        (tensors | {"site_10": nan}, metadata, "NaN or infinity at layer 10"),
        ({k: v[:3] for k, v in tensors.items()}, metadata, "for 4 examples"),
        (tensors | {"weights": torch.ones(2)}, metadata, "not one of ours"),
        (tensors, {}, "no header"),
        (tensors, {HEADER: "{}"}, "no header"),
    ]
    for damaged, header, said in wrong:
        write_tensors(tmp_path / FILE, damaged, header)
        with pytest.raises(RequestError, match=said):
            ActivationSet.load(tmp_path)
