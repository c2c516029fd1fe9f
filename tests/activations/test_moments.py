"""Streamed moments equal those of everything at once, and directions can be found from them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from persona_probe.activations.manifest import Manifest
    from persona_probe.activations.moments import Moments
    from persona_probe.activations.moments_file import MomentsFile
    from persona_probe.activations.rows import Row

N, SITES, D_MODEL = 300, 2, 6
SHARDS = (120, 0, 1, 179)


@pytest.fixture
def values() -> "Tensor":
    """A small spread around a large mean, where a plain sum of squares keeps few digits."""
    import torch

    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(N, SITES, D_MODEL)) @ rng.normal(size=(D_MODEL, D_MODEL))
    return torch.from_numpy(1e3 + mixed)


@pytest.fixture
def rows() -> "list[Row]":
    """Families of unequal size, whose labels are unequally frequent."""
    from persona_probe.activations.rows import Row

    rng = np.random.default_rng(1)
    return [Row(str(i), "abb"[rng.integers(3)], f"f{rng.integers(1, 5)}") for i in range(N)]


@pytest.fixture
def read(values: "Tensor", rows: "list[Row]") -> "Callable[..., Moments]":
    from persona_probe.activations.moments import Moments
    from persona_probe.models.site import Site

    def read(start: int = 0, stop: int = N, covariance: bool = True) -> "Moments":
        some = rows[start:stop]
        return Moments.of(
            values[start:stop],
            [row.label for row in some],
            [row.family for row in some],
            (Site(1), Site(4)),
            "p",
            covariance,
        )

    return read


def close(found: "Tensor", expected: np.ndarray) -> bool:
    """Within 1e-10 of the largest entry."""
    return bool(np.abs(found.numpy() - expected).max() <= 1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("size", [1, 7, 128, N])
@pytest.mark.parametrize("backwards", [False, True])
def test_any_batches_give_the_moments_of_everything(
    read: "Callable[..., Moments]",
    values: "Tensor",
    rows: "list[Row]",
    size: int,
    backwards: bool,
) -> None:
    from persona_probe.models.site import Site

    batches = [read(start, min(start + size, N)) for start in range(0, N, size)]
    total, *rest = batches[::-1] if backwards else batches
    for batch in rest:
        total = total.merged(batch)
    x = values.numpy()
    labels = np.array([row.label for row in rows])
    families = np.array([row.family for row in rows])
    assert total.labels == ("a", "b")
    assert total.count() == N
    assert close(total.mean(), x.mean(axis=0))
    for label in "ab":
        mine = x[labels == label]
        assert total.count(label) == len(mine)
        assert close(total.mean(label), mine.mean(axis=0))
        for at, site in enumerate((Site(1), Site(4))):
            assert close(total.covariance(site, label), np.cov(mine[:, at].T))
        chosen = (labels == label) & np.isin(families, ["f1", "f3"])
        assert 0 < chosen.sum() < len(mine)
        assert total.count(label, ["f1", "f3"]) == chosen.sum()
        assert close(total.mean(label, ["f1", "f3"]), x[chosen].mean(axis=0))
    assert close(total.mean(families=["f2"]), x[families == "f2"].mean(axis=0))
    centred = x[:, 1] - np.stack([x[labels == label, 1].mean(axis=0) for label in labels])
    assert close(total.covariance(Site(4)), centred.T @ centred / (N - 2))


def test_float16_activations_are_averaged_in_float64() -> None:
    import torch

    from persona_probe.activations.moments import Moments
    from persona_probe.models.site import Site

    values = torch.full((4096, 1, 1), 60000.0, dtype=torch.float16)
    found = Moments.of(values, ["a"] * 4096, ["f"] * 4096, [Site(0)], "p", covariance=True)
    assert found.mean("a").item() == values[0].item()
    assert found.covariance(Site(0), "a").item() == 0.0


def test_a_label_that_differs_by_family_has_that_in_its_covariance() -> None:
    import torch

    from persona_probe.activations.moments import Moments
    from persona_probe.models.site import Site

    values = torch.tensor([0.0, 0.0, 2.0, 2.0])[:, None, None]
    found = Moments.of(values, ["a"] * 4, ["f", "f", "g", "g"], [Site(0)], "p", covariance=True)
    assert found.covariance(Site(0), "a").item() == pytest.approx(4 / 3)


def test_a_direction_found_from_moments_is_that_of_the_finder(
    values: "Tensor", rows: "list[Row]", read: "Callable[..., Moments]"
) -> None:
    import torch

    from persona_probe.directions.finders.mean_difference import MeanDifference

    y = torch.tensor([row.label == "a" for row in rows])
    moments = read(0, 100).merged(read(100, N))
    difference = moments.mean("a") - moments.mean("b")
    assert difference.norm(dim=-1).min() > 0.1
    for at in range(SITES):
        assert close(difference[at], MeanDifference().fit(values[:, at], y).numpy())


def test_what_is_not_there_is_refused(read: "Callable[..., Moments]", values: "Tensor") -> None:
    from persona_probe.activations.moments import Moments
    from persona_probe.errors import (
        DegenerateClassesError,
        PersonaProbeError,
        RequestError,
        SiteMismatchError,
    )
    from persona_probe.models.site import Site

    moments = read()
    with pytest.raises(DegenerateClassesError, match=r"labelled 'c' in these .* labels are a, b"):
        moments.mean("c")
    with pytest.raises(DegenerateClassesError, match="no examples in these moments"):
        moments.mean(families=[])
    with pytest.raises(DegenerateClassesError, match="labelled 'c'"):
        moments.covariance(Site(1), "c")
    with pytest.raises(SiteMismatchError, match="layer 0, only at layers 1, 4"):
        moments.covariance(Site(0))
    with pytest.raises(DegenerateClassesError, match="1 examples have no covariance"):
        read(0, 1).covariance(Site(1))
    with pytest.raises(RequestError, match="hold no covariances"):
        read(covariance=False).covariance(Site(1))
    with pytest.raises(RequestError, match="with covariances and moments without"):
        moments.merged(read(covariance=False))
    with pytest.raises(RequestError, match="moments of position p with those of q"):
        moments.merged(replace(moments, position="q"))
    values[7, 1, 0] = float("nan")
    labels = ["a"] * 7 + ["b"] * (N - 7)
    with pytest.raises(PersonaProbeError, match="labelled 'b' at layer 4 hold NaN"):
        Moments.of(values, labels, labels, [Site(1), Site(4)], "p")


@pytest.fixture
def manifest() -> "Manifest":
    from persona_probe.activations.manifest import Manifest
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    sites = (Site(1), Site(4))
    return Manifest("p", sites, D_MODEL, "float32", SHARDS, Provenance(model="tiny"))


@pytest.fixture
def grow(manifest: "Manifest", rows: "list[Row]", values: "Tensor") -> "Callable[..., MomentsFile]":
    """Begin or go on in a folder, read some shards, and save."""
    from persona_probe.activations.moments_file import MomentsFile

    def grow(
        folder: Path, shards: Any = range(4), covariance: bool = True, **changes: Any
    ) -> "MomentsFile":
        file = MomentsFile.begin(folder, replace(manifest, **changes), rows, covariance)
        for shard in shards:
            start = manifest.starts[shard]
            stop = start + SHARDS[shard]
            file = file.with_shard(shard, values[start:stop].float(), rows[start:stop])
        file.save()
        return file

    return grow


@pytest.mark.parametrize("covariance", [False, True])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    grow: "Callable[..., MomentsFile]",
    manifest: "Manifest",
    tmp_path: Path,
    covariance: bool,
) -> None:
    from persona_probe.activations.moments_file import MomentsFile
    from persona_probe.errors import RequestError

    for shards in ([], [0, 1], [2], range(4)):
        file = grow(tmp_path / "parts", shards, covariance)
        if len(shards) < 4:
            with pytest.raises(RequestError, match=r"moments\.safetensors is unfinished: \d of 4"):
                MomentsFile.open(tmp_path / "parts").finished()
    assert file.missing() == []
    grow(tmp_path / "whole", covariance=covariance)
    whole, parts = ((tmp_path / of / "moments.safetensors") for of in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes()
    opened = MomentsFile.open(tmp_path / "parts")
    assert opened.manifest == manifest
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["moments.safetensors"]


def test_what_is_saved_is_opened(
    grow: "Callable[..., MomentsFile]", manifest: "Manifest", tmp_path: Path
) -> None:
    from persona_probe.activations.moments_file import MomentsFile

    saved = grow(tmp_path).moments
    opened = MomentsFile.open(tmp_path).finished()
    assert opened.count("a", ["f2"]) == saved.count("a", ["f2"]) > 0
    assert opened.mean().equal(saved.mean())
    for site in manifest.sites:
        assert opened.covariance(site).equal(saved.covariance(site))
        assert opened.covariance(site, "b").equal(saved.covariance(site, "b"))


def test_parts_of_several_machines_make_the_whole(
    grow: "Callable[..., MomentsFile]", manifest: "Manifest", tmp_path: Path
) -> None:
    from persona_probe.activations.moments_file import MomentsFile
    from persona_probe.errors import RequestError

    whole = grow(tmp_path / "whole").moments
    parts = [
        grow(tmp_path / name, shards).folder for name, shards in (("b", [3]), ("a", [0, 1, 2]))
    ]
    found = MomentsFile.joined(tmp_path / "joined", parts).finished()
    assert close(found.mean("a"), whole.mean("a").numpy())
    for site in manifest.sites:
        assert close(found.covariance(site), whole.covariance(site).numpy())
    with pytest.raises(RequestError, match="holds shard 3, which another part holds too"):
        MomentsFile.joined(tmp_path / "joined", [*parts, parts[0]])
    other = grow(tmp_path / "other", [], position="q").folder
    with pytest.raises(RequestError, match="with position 'p' instead of 'q'"):
        MomentsFile.joined(tmp_path / "joined", [*parts, other])
    with pytest.raises(RequestError, match="with position 'q' instead of 'p'"):
        MomentsFile.joined(other, parts)


def test_other_moments_in_the_folder_are_refused(
    grow: "Callable[..., MomentsFile]", rows: "list[Row]", manifest: "Manifest", tmp_path: Path
) -> None:
    from persona_probe.activations.moments_file import MomentsFile
    from persona_probe.errors import PersonaProbeError, RequestError
    from persona_probe.files import read_tensors, write_tensors

    grow(tmp_path)
    path = tmp_path / "moments.safetensors"
    before = path.read_bytes()
    model = manifest.provenance.with_(model="big")
    for changes, said in (
        ({"provenance": model}, "with model 'tiny' instead of 'big'"),
        ({"covariance": False}, "with covariance True instead of False"),
    ):
        with pytest.raises(RequestError, match=rf"moments\.safetensors holds other .* {said}"):
            grow(tmp_path, **changes)
    with pytest.raises(RequestError, match="with rows"):
        MomentsFile.begin(tmp_path, manifest, [*rows[1:], rows[0]], covariance=True)
    assert path.read_bytes() == before
    tensors, metadata = read_tensors(path)
    with pytest.raises(RequestError, match="no such file"):
        MomentsFile.open(tmp_path / "absent")
    for damaged, header in (
        (tensors, {}),
        ({}, metadata),
        (tensors | {"mean_4": tensors["mean_4"][1:]}, metadata),
        (tensors | {"scatter_1": tensors["scatter_1"][:, 1:]}, metadata),
    ):
        write_tensors(path, damaged, header)
        with pytest.raises(RequestError, match="holds no moments of ours"):
            MomentsFile.open(tmp_path)
    path.write_bytes(before[:100])
    with pytest.raises(PersonaProbeError, match="is not a safetensors file"):
        MomentsFile.open(tmp_path)
