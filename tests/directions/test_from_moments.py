"""Directions of activations that were never stored are those of the stored ones."""

from pathlib import Path
from typing import Any

import pytest

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError, RequestError

ENOUGH = ["mean_difference", "whitened_difference", "shrinkage_lda"]


def streamed(activations: Any, folder: Path, covariance: bool = True, shard: int = 37) -> Any:
    """The moments of a set, read a shard at a time and saved after each."""
    from persona_probe.activations.manifest import Manifest
    from persona_probe.activations.moments_file import MomentsFile
    from persona_probe.activations.rows import Row

    labelled = zip(activations.ids, activations.labels, activations.families, strict=True)
    rows = [Row(*about) for about in labelled]
    batches = list(activations.batches(shard))
    manifest = Manifest(
        activations.position,
        activations.sites,
        activations.d_model,
        "float32",
        tuple(map(len, batches)),
        activations.provenance,
    )
    for k, batch in enumerate(batches):
        file = MomentsFile.begin(folder, manifest, rows, covariance)
        file.with_shard(k, batch.values, rows[shard * k : shard * k + len(batch)]).save()
    return MomentsFile.open(folder)


def shuffled(activations: Any) -> Any:
    """Classes and families mixed, as they come."""
    import numpy as np

    return activations.take(np.random.default_rng(0).permutation(len(activations)).tolist())


@pytest.mark.parametrize("name", ENOUGH)
@pytest.mark.parametrize("width", [8, 40])
def test_they_are_what_the_finder_finds_in_the_find_part(
    name: str, width: int, planted: Any, tmp_path: Path
) -> None:
    """With more examples than axes and with fewer."""
    from persona_probe.directions.from_moments import find_per_label_from_moments
    from persona_probe.directions.per_label import find_per_label

    data = planted(d_model=width, families=8, per_family=4).activations
    data = shuffled(data.with_values(data.values + 100.0))
    found = find_per_label_from_moments(streamed(data, tmp_path), FINDERS[name](), "neutral")
    expected = find_per_label(data, FINDERS[name](), "neutral")
    assert list(found) == ["hero"]
    for site, direction in expected["hero"].items():
        same = found["hero"][site]
        assert same.unit == pytest.approx(direction.unit, abs=2e-7)
        assert same.gap == pytest.approx(direction.gap, rel=1e-6)
        assert same.midpoint == pytest.approx(direction.midpoint, rel=1e-5)
        for field in (
            "finder",
            "family",
            "persona",
            "position",
            "provenance",
            "split_hash",
            "families_used",
            "positive_label",
            "negative_label",
        ):
            assert getattr(same, field) == getattr(direction, field)
        neutral = data.where(labels=["neutral"], families=direction.families_used).site(site)
        assert same.norm == pytest.approx(float(neutral.norm(dim=1).mean()), rel=1e-6)


@pytest.mark.parametrize("name", ENOUGH)
def test_without_a_split_they_are_found_in_everything(
    name: str, planted: Any, tmp_path: Path
) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.from_moments import find_from_moments

    data = shuffled(planted(families=8, per_family=4).activations)
    moments = streamed(data, tmp_path).finished()
    found = find_from_moments(moments, FINDERS[name](), "hero", "neutral", data.provenance)
    for site, direction in find_directions(data, FINDERS[name](), "hero", "neutral").items():
        assert found[site].unit == pytest.approx(direction.unit, abs=2e-7)
        assert found[site].gap == pytest.approx(direction.gap, rel=1e-6)
        assert found[site].families_used == direction.families_used


def test_what_moments_do_not_hold_is_refused(planted: Any, tmp_path: Path) -> None:
    from persona_probe.directions.finders.orthogonalised import Orthogonalised
    from persona_probe.directions.from_moments import find_per_label_from_moments

    data = planted(families=8, per_family=2).activations
    file = streamed(data, tmp_path / "with")
    for finder in (FINDERS["linear_probe"](), FINDERS["principal_component"]()):
        with pytest.raises(RequestError, match="needs every example, and here are only moments"):
            find_per_label_from_moments(file, finder, "neutral")
    wrapped = Orthogonalised(FINDERS["mean_difference"](), ())
    with pytest.raises(RequestError, match="needs every example"):
        find_per_label_from_moments(file, wrapped, "neutral")
    lda = FINDERS["shrinkage_lda"]()
    with pytest.raises(RequestError, match="the find part of the split with seed 0"):
        find_per_label_from_moments(file, lda, "neutral", seed=1)
    without = streamed(data, tmp_path / "without", covariance=False)
    with pytest.raises(RequestError, match="hold no covariance"):
        find_per_label_from_moments(without, lda, "neutral")
    assert find_per_label_from_moments(file, FINDERS["mean_difference"](), "neutral", seed=1)
    with pytest.raises(RequestError, match="no example is labelled 'villain'"):
        find_per_label_from_moments(file, lda, "neutral", ["villain"])
    same = data.with_values(data.values[: len(data) // 2].repeat(2, 1, 1))
    coinciding = streamed(same, tmp_path / "same")
    with pytest.raises(DegenerateClassesError, match="coincide"):
        find_per_label_from_moments(coinciding, lda, "neutral")


def test_a_folder_is_searched_for_what_it_holds(planted: Any, tmp_path: Path) -> None:
    from persona_probe.directions.families.found_family import found_in
    from persona_probe.directions.from_moments import opened

    data = planted(families=8, per_family=2).activations
    data.save(tmp_path / "stored")
    streamed(data, tmp_path / "both")
    data.save(tmp_path / "both")
    streamed(data, tmp_path / "moments")
    finder = FINDERS["mean_difference"]()
    sources = [opened(tmp_path / name) for name in ("stored", "both", "moments")]
    asked = "probe", {}, finder, "neutral", None, 0
    found = [found_in(source, *asked)["hero"] for source in sources]
    assert {direction.family for of in found for direction in of.values()} == {"probe"}
    for site, direction in found[0].items():
        assert found[1][site].norm == direction.norm != found[2][site].norm
        assert found[2][site].unit == pytest.approx(direction.unit, abs=2e-7)
    with pytest.raises(RequestError, match="model_diff needs every example, and here are only mom"):
        found_in(sources[2], "model_diff", {}, finder, "neutral", None, 0)
    with pytest.raises(RequestError, match="empty"):
        opened(tmp_path / "empty")
