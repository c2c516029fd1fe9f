from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from persona_probe.activations.activation_set import ActivationSet

TOLD = ("position", "ids", "labels", "families", "provenance", "texts", "metadata", "sites")


@pytest.fixture
def activations() -> "ActivationSet":
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    return ActivationSet.of(
        values=torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)),
        sites=(Site(1), Site(10)),
        position="response_mean",
        ids=("a", "b", "c", "d"),
        labels=("kind", "blunt", "kind", ""),
        families=("f", "f", "g", "g"),
        provenance=Provenance(model="tiny", seed=3),
        texts=("one", "two", "drei", "fünf\u2028"),
        metadata=({"turn": 1}, {}, {"turn": 2, "id": "x"}, {}),
    )


@pytest.fixture
def stored(
    activations: "ActivationSet", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "ActivationSet":
    """The same, opened from a store of several shards."""
    from persona_probe.activations import activation_set
    from persona_probe.activations.store import Store

    monkeypatch.setattr(activation_set, "SHARD_BYTES", 3 * 2 * 5 * 4)
    opened = activation_set.ActivationSet.open(activations.save(tmp_path / "stored"))
    assert Store.open(tmp_path / "stored").manifest.shards == (3, 1)
    return opened


@pytest.fixture(params=["in memory", "stored"])
def either(
    request: pytest.FixtureRequest, activations: "ActivationSet", stored: "ActivationSet"
) -> "ActivationSet":
    return activations if request.param == "in memory" else stored


def test_a_site_is_found_by_name_not_by_index(
    either: "ActivationSet", activations: "ActivationSet"
) -> None:
    from persona_probe.errors import SiteMismatchError
    from persona_probe.models.site import Site

    assert either.site(Site(10)).equal(activations.values[:, 1])
    with pytest.raises(SiteMismatchError, match="layer 0, only at layers 1, 10"):
        either.site(Site(0))


def test_where_keeps_rows_together(either: "ActivationSet", activations: "ActivationSet") -> None:
    from persona_probe.models.site import Site

    kind = either.where(labels=["kind"])
    assert (kind.ids, kind.families, kind.texts) == (("a", "c"), ("f", "g"), ("one", "drei"))
    assert kind.metadata == ({"turn": 1}, {"turn": 2, "id": "x"})
    assert kind.values.equal(activations.values[[0, 2]])
    assert either.where(labels=["kind"], families=["g"]).ids == ("c",)
    assert len(either.where(families=[])) == 0
    assert either.where(families=[]).values.shape == (0, 2, 5)
    assert either.where().ids == either.ids
    again = either.where(families=["g"]).where(labels=[""])
    assert again.site(Site(1)).equal(activations.values[3:, 0])


def test_rows_are_taken_in_the_order_asked_for(
    either: "ActivationSet", activations: "ActivationSet"
) -> None:
    shuffled = either.take([3, 0, 2]).take([2, 0, 1])
    assert shuffled.ids == ("c", "d", "a")
    assert shuffled.values.equal(activations.values[[2, 3, 0]])


def test_batches_are_all_examples_in_order(
    either: "ActivationSet", activations: "ActivationSet"
) -> None:
    import torch

    batches = list(either.batches(3))
    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.cat([batch.values for batch in batches]).equal(activations.values)
    assert sum((batch.ids for batch in batches), ()) == activations.ids


def test_a_split_is_by_family_and_complete(either: "ActivationSet") -> None:
    from persona_probe.errors import RequestError
    from persona_probe.personas.splits import Split

    parts = either.split(Split(frozenset("f"), frozenset(), frozenset("g")))
    assert {part: found.ids for part, found in parts.items()} == {
        "find": ("a", "b"),
        "select": (),
        "evaluate": ("c", "d"),
    }
    with pytest.raises(RequestError, match="family 'g' is not in this split"):
        either.split(Split(frozenset("f"), frozenset(), frozenset()))


def test_numbers_and_names_for_other_tools(either: "ActivationSet") -> None:
    array = either.to_numpy()
    assert array.dtype == np.float32
    assert (array == either.values.numpy()).all()
    frame = either.to_frame()
    assert list(frame) == ["id", "label", "family", "text", "turn", "metadata.id"]
    assert list(frame["label"]) == ["kind", "blunt", "kind", ""]
    assert list(frame["metadata.id"].dropna()) == ["x"]
    assert list(frame[frame["turn"] == 2]["id"]) == ["c"]


@pytest.mark.parametrize("rows", [4, 1, 0])
def test_what_is_saved_is_opened(activations: "ActivationSet", tmp_path: Path, rows: int) -> None:
    from persona_probe.activations.activation_set import ActivationSet

    kept = activations.take(range(rows))
    if rows == 0:
        kept = replace(kept, texts=None, metadata=None)
    opened = ActivationSet.open(kept.save(tmp_path))
    assert opened.values.equal(kept.values)
    for name in TOLD:
        assert getattr(opened, name) == getattr(kept, name), name


def test_it_is_read_with_plain_safetensors(activations: "ActivationSet", tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(activations.save(tmp_path) / "shard-00000.safetensors")
    assert set(tensors) == {"site_1", "site_10"}
    assert tensors["site_10"].equal(activations.values[:, 1])


def test_saving_twice_changes_nothing_and_other_numbers_replace(
    activations: "ActivationSet", tmp_path: Path
) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.errors import RequestError

    activations.save(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ActivationSet.open(tmp_path).save(tmp_path)  # Reads from where it would write.
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    activations.with_values(-activations.values).save(tmp_path)
    assert ActivationSet.open(tmp_path).values.equal(-activations.values)
    elsewhere = replace(activations, provenance=activations.provenance.with_(model="other"))
    with pytest.raises(RequestError, match="with model 'tiny' instead of 'other'"):
        elsewhere.save(tmp_path)
    with pytest.raises(RequestError, match=r"with rows .* instead of '"):
        activations.take([1, 0, 2, 3]).save(tmp_path)
    assert ActivationSet.open(tmp_path).values.equal(-activations.values)


def test_columns_of_another_length_are_refused(activations: "ActivationSet") -> None:
    from persona_probe.activations.columns import InMemory
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match="4 activations, but 3 labels"):
        replace(activations, labels=("kind", "blunt", "kind"))
    with pytest.raises(RequestError, match="2 sites, but 1"):
        InMemory(activations.values, activations.sites[:1])
    with pytest.raises(RequestError, match="3 sites, but 2"):
        activations.with_values(activations.values.repeat(1, 2, 1)[:, :3])


def test_an_unfinished_store_is_not_opened(activations: "ActivationSet", tmp_path: Path) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=r"holds no activations \(no manifest.json\)"):
        ActivationSet.open(tmp_path)
    activations.save(tmp_path)
    (tmp_path / "shard-00000.json").unlink()
    with pytest.raises(RequestError, match="1 of 1 shards are missing; run the same extract"):
        ActivationSet.open(tmp_path)


def test_damaged_tensors_are_named_when_they_are_read(
    activations: "ActivationSet", tmp_path: Path
) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.site import Site

    path = activations.save(tmp_path) / "shard-00000.safetensors"
    whole = path.read_bytes()
    header = whole.replace(b"site_10", b"site_77")
    shape = whole.replace(b'"shape":[4,5]', b'"shape":[5,4]')
    for damaged in (header, shape, b"\xff" * len(whole)):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(PersonaProbeError, match=r"shard-00000\.safetensors .*; delete .*\.\*"):
            ActivationSet.open(tmp_path).site(Site(10))


@pytest.fixture
def peak() -> Callable[[], int]:
    """Starts a measurement of the resident memory, file mappings included; returns its peak."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        reset.write_text("5")
    except OSError:
        pytest.skip("the peak of the resident memory cannot be measured here")

    def measure() -> int:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        found = int(lines["VmHWM"].split()[0]) * 1024
        reset.write_text("5")
        return found

    return measure


def test_opening_reads_nothing_and_one_site_only_itself(
    tmp_path: Path, peak: Callable[[], int]
) -> None:
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    n, sites, d_model = 64, 48, 16384
    whole, one = n * sites * d_model * 4, n * d_model * 4
    names = [str(i) for i in range(n)]
    ActivationSet.of(
        torch.ones(n, sites, d_model),
        [Site(layer) for layer in range(sites)],
        "p",
        names,
        names,
        names,
        Provenance(),
    ).save(tmp_path)

    peak()
    before = peak()
    opened = ActivationSet.open(tmp_path)
    some = opened.where(labels=names[::2])
    assert peak() - before < one
    column = opened.site(Site(7))
    assert column.shape == (n, d_model)
    # The mapped bytes and their copy, plus what the kernel maps around them.
    assert one / 2 < peak() - before < 4 * one
    assert some.site(Site(9)).shape == (n // 2, d_model)
    assert peak() - before < 4 * one
    assert opened.values.shape == (n, sites, d_model)
    assert peak() - before > whole
