"""What a store promises: whole shards, the same bytes, and one clear sentence otherwise."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from persona_probe.activations.manifest import Manifest
    from persona_probe.activations.rows import Row
    from persona_probe.activations.store import Store

SHARDS = (3, 0, 2, 3)
ALL = range(len(SHARDS))
WRITER = Path(__file__).with_name("killed_writer.py")


@pytest.fixture
def manifest() -> "Manifest":
    from persona_probe.activations.manifest import Manifest
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    return Manifest(
        position="response_mean",
        sites=(Site(2), Site(7)),
        d_model=5,
        dtype="float32",
        shards=SHARDS,
        provenance=Provenance(
            model="tiny",
            model_hash="aa",
            adapter="virtue",
            chat_template_hash="bb",
            prompts_hash="cc",
            command="extract",
        ),
        settings={"truncate": None, "layers": (1, 2)},
    )


@pytest.fixture
def rows() -> "list[Row]":
    from persona_probe.activations.rows import Row

    return [Row(f"r{i}", "ab"[i % 2], "f", "text", {"turn": i}) for i in range(sum(SHARDS))]


@pytest.fixture
def values() -> "list[Tensor]":
    import torch

    random_numbers = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, 5, generator=random_numbers) for n in SHARDS]


@pytest.fixture
def write(
    manifest: "Manifest", rows: "list[Row]", values: "list[Tensor]"
) -> "Callable[..., Store]":
    """Write some shards, all if not given; arguments change the manifest."""
    from persona_probe.activations.store import Store

    def write(folder: Path, which: Any = ALL, **changes: Any) -> "Store":
        store = Store.begin(folder, replace(manifest, **changes), rows)
        for shard in which:
            store.write(shard, values[shard])
        return store

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_in_any_order_and_after_an_interruption(
    write: "Callable[..., Store]", tmp_path: Path
) -> None:
    whole = write(tmp_path / "whole")
    assert whole.missing() == []
    assert whole.verify().shards == 4
    assert whole.verify().rows == 8
    assert write(tmp_path / "parts", [2, 0]).missing() == [1, 3]
    assert write(tmp_path / "parts", [3, 1, 2]).missing() == []
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    assert sorted(contents(tmp_path / "whole"))[:3] == [
        "manifest.json",
        "rows.jsonl",
        "shard-00000.json",
    ]


@pytest.mark.parametrize("way", ["at_times", "at_lines"])
def test_killed_writers_leave_what_an_uninterrupted_one_writes(way: str, tmp_path: Path) -> None:
    command = [sys.executable, str(WRITER), way, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found, "never killed"
    if way == "at_lines":  # Where times fall depends on what else the machine does.
        assert len(found) >= 3, "hardly ever killed"
        assert len(set(found)) >= 2, "always killed at the same place"
    expected = contents(tmp_path / "reference")
    stores = [path for path in tmp_path.iterdir() if path.name.startswith("killed")]
    assert len(stores) == (1 if way == "at_times" else len(found) + 1)
    for store in stores:
        assert contents(store) == expected, store.name


def test_a_shard_is_what_the_safetensors_library_writes(
    write: "Callable[..., Store]", values: "list[Tensor]", tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save

    store = write(tmp_path)
    with safe_open(store.tensors(2), "pt") as file:
        header = file.metadata()
    assert json.loads(header["persona_probe"]) == {
        "shard": 2,
        "first": 3,
        "rows": 2,
        "fingerprint": store.fingerprint,
    }
    tensors = {"site_2": values[2][:, 0].clone(), "site_7": values[2][:, 1].clone()}
    assert store.tensors(2).read_bytes() == save(tensors, header)


def test_files_of_dead_writers_are_removed_and_of_living_ones_kept(
    write: "Callable[..., Store]", tmp_path: Path
) -> None:
    write(tmp_path, [0])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {of: tmp_path / f".shard-00001.json.{of}.part" for of in (dead.pid, os.getppid())}
    for path in (*names.values(), tmp_path / f".rows.jsonl.{os.getpid()}.part"):
        path.write_text("half")
    write(tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [names[os.getppid()].name]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "big"}, "with model 'tiny' instead of 'big'"),
        ({"model_hash": "ab"}, "with model weights 'aa' instead of 'ab'"),
        ({"adapter": None}, "with adapter 'virtue' instead of none"),
        ({"chat_template_hash": "none"}, "with chat template 'bb' instead of 'none'"),
        ({"prompts_hash": "cd"}, "with prompts 'cc' instead of 'cd'"),
        ({"seed": 3}, "with seed none instead of 3"),
    ],
)
def test_another_provenance_is_refused(
    write: "Callable[..., Store]",
    manifest: "Manifest",
    tmp_path: Path,
    changes: dict[str, Any],
    said: str,
) -> None:
    from persona_probe.errors import RequestError

    write(tmp_path, [0])
    before = contents(tmp_path)
    with pytest.raises(RequestError, match=said) as refused:
        write(tmp_path, provenance=manifest.provenance.with_(**changes))
    assert str(refused.value).count(";") == 1
    assert contents(tmp_path) == before


def test_other_settings_are_refused(write: "Callable[..., Store]", tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.site import Site

    write(tmp_path, [0])
    for changes, said in (
        ({"position": "last"}, "with position 'response_mean' instead of 'last'"),
        ({"sites": (Site(2), Site(8))}, r"with sites \[2, 7\] instead of \[2, 8\]"),
        ({"d_model": 6}, "with d_model 5 instead of 6"),
        ({"dtype": "float16"}, "with dtype 'float32' instead of 'float16'"),
        ({"settings": {"truncate": 9}}, "with setting 'layers' .* instead of none"),
        (
            {"settings": {"truncate": 9, "layers": [1, 2]}},
            "with setting 'truncate' none instead of 9",
        ),
        ({"shards": (4, 4)}, r"with rows per shard \[3, 0, 2, 3\] instead of \[4, 4\]"),
    ):
        with pytest.raises(RequestError, match=said):
            write(tmp_path, [], **changes)


def test_other_rows_are_refused_and_other_libraries_are_not(
    write: "Callable[..., Store]", manifest: "Manifest", rows: "list[Row]", tmp_path: Path
) -> None:
    from persona_probe.activations.store import Store
    from persona_probe.errors import RequestError

    write(tmp_path / "whole")
    write(tmp_path / "parts", [0])
    relabelled = [replace(rows[0], label="c"), *rows[1:]]
    with pytest.raises(RequestError, match=r"with rows \(ids, labels, .*\) '"):
        Store.begin(tmp_path / "parts", manifest, relabelled)
    newer = manifest.provenance.with_(versions={"torch": "9"}, command="extract again")
    assert write(tmp_path / "parts", provenance=newer).missing() == []
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    with pytest.raises(ValueError, match="7 rows for shards of 8"):
        Store.begin(tmp_path / "new", manifest, rows[1:])


def test_impossible_stores_are_refused(
    write: "Callable[..., Store]", rows: "list[Row]", manifest: "Manifest", tmp_path: Path
) -> None:
    from persona_probe.activations.store import Store
    from persona_probe.errors import RequestError
    from persona_probe.models.site import Site

    for changes, said in (
        ({"dtype": "bfloat16"}, "float32 or float16, not as 'bfloat16'"),
        ({"sites": (Site(7), Site(2))}, r"in order of depth, not as \[7, 2\]"),
        ({"sites": ()}, "once each"),
    ):
        with pytest.raises(RequestError, match=said):
            write(tmp_path, **changes)
    for metadata in ({"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}):
        with pytest.raises(RequestError, match="row 'r0' cannot be written as JSON"):
            Store.begin(tmp_path, manifest, [replace(rows[0], metadata=metadata), *rows[1:]])
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot make the folder"):
        write(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_foreign_folders_are_refused(write: "Callable[..., Store]", tmp_path: Path) -> None:
    from persona_probe.activations.store import Store
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=r"holds no activations \(no manifest.json\)"):
        Store.open(tmp_path / "absent")
    write(tmp_path, [0])
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(RequestError, match="no manifest of format 1"):
        Store.open(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RequestError, match="holds shards without a"):
        write(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_never_stored(
    write: "Callable[..., Store]", values: "list[Tensor]", tmp_path: Path, bad: float
) -> None:
    from persona_probe.errors import PersonaProbeError

    values[2][1, 0, 3] = bad
    with pytest.raises(PersonaProbeError, match="activations of 'r4' at layer 2 are NaN or inf"):
        write(tmp_path)
    assert write(tmp_path, []).missing() == [2, 3]


def test_float16_is_rounded_and_its_range_is_guarded(
    write: "Callable[..., Store]", values: "list[Tensor]", tmp_path: Path
) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.site import Site

    values[0][0, 0, 0] = 65504.0
    write(tmp_path, dtype="float16")
    found = ActivationSet.open(tmp_path)
    assert found.site(Site(7))[3:5].equal(values[2][:, 1].half().float())
    assert found.values[0, 0, 0] == 65504.0
    values[3][2, 1, 4] = -70000.0
    with pytest.raises(PersonaProbeError, match=r"of 'r7' at layer 7 has size 70000, .* float32"):
        write(tmp_path / "beyond", dtype="float16")
    write(tmp_path / "wide")


def test_a_shard_of_another_shape_is_a_defect(
    write: "Callable[..., Store]", values: "list[Tensor]", tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"shard 2 is of shape \(2, 2, 5\), not \(3, 2, 5\)"):
        write(tmp_path, []).write(2, values[0])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["shard-00002.safetensors", "shard-00002.json", "rows.jsonl"])
def test_damage_is_found_named_and_mended_as_the_message_says(
    write: "Callable[..., Store]", tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    from persona_probe.activations.store import Store
    from persona_probe.errors import PersonaProbeError

    write(tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(PersonaProbeError, match=name.partition(".")[0]) as found:
        Store.open(tmp_path).verify()
    assert "run the same extract command again" in str(found.value)
    if "delete" in str(found.value):
        for path in list(tmp_path.glob(name.partition(".")[0] + ".*")):
            path.unlink()
    write(tmp_path)
    assert contents(tmp_path) == whole


def test_a_truncated_shard_is_written_again_without_being_asked(
    write: "Callable[..., Store]", tmp_path: Path
) -> None:
    store = write(tmp_path)
    whole = contents(tmp_path)
    truncate(store.tensors(3))
    assert store.missing() == [3]
    write(tmp_path)
    assert contents(tmp_path) == whole


def test_a_changed_label_is_noticed(write: "Callable[..., Store]", tmp_path: Path) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.errors import RequestError

    write(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace('"label": "a"', '"label": "b"', 1))
    with pytest.raises(RequestError, match=r"rows\.jsonl was changed since it was written; del"):
        ActivationSet.open(tmp_path)
    with pytest.raises(RequestError, match=r"rows\.jsonl was changed"):
        write(tmp_path)


def test_a_shard_of_another_store_is_noticed(write: "Callable[..., Store]", tmp_path: Path) -> None:
    from persona_probe.errors import PersonaProbeError

    store = write(tmp_path / "one")
    write(tmp_path / "two", position="last")
    stray = tmp_path / "two" / "shard-00002.json"
    (tmp_path / "one" / stray.name).write_bytes(stray.read_bytes())
    for use in (store.verify, store.missing):
        with pytest.raises(PersonaProbeError, match=r"shard-00002\.json is of other activations"):
            use()


def test_parts_of_several_machines_make_the_whole(
    write: "Callable[..., Store]", tmp_path: Path
) -> None:
    write(tmp_path / "whole")
    write(tmp_path / "one", [0, 2])
    write(tmp_path / "two", [1, 2, 3])
    joined = write(tmp_path / "joined", [])
    assert joined.merge(tmp_path / "one") == 2
    kept = joined.tensors(2).stat().st_mtime_ns
    assert joined.merge(tmp_path / "two") == 2
    assert joined.merge(tmp_path / "two") == 0
    assert joined.tensors(2).stat().st_mtime_ns == kept
    assert joined.verify().rows == 8
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_parts_that_differ_or_are_damaged_are_refused(
    write: "Callable[..., Store]", tmp_path: Path
) -> None:
    from persona_probe.errors import PersonaProbeError, RequestError

    joined = write(tmp_path / "joined", [0])
    before = contents(tmp_path / "joined")
    other = write(tmp_path / "other", dtype="float16")
    with pytest.raises(RequestError, match=r"merged .* dtype 'float16' instead of 'float32'"):
        joined.merge(other.folder)
    part = write(tmp_path / "part")
    for damage, said in (
        (flip, "has other bytes than were written"),
        (truncate, "bytes instead of"),
        (Path.unlink, "is missing"),
    ):
        damage(part.tensors(2))
        with pytest.raises(PersonaProbeError, match=rf"part/shard-00002\.safetensors .*{said}"):
            joined.merge(part.folder)
    assert {k: v for k, v in contents(joined.folder).items() if "00001" not in k} == before


def test_a_full_disk_is_one_sentence_and_keeps_what_is_finished(
    write: "Callable[..., Store]", values: "list[Tensor]", tmp_path: Path
) -> None:
    from persona_probe.errors import PersonaProbeError

    store = write(tmp_path, [0])
    # The kernel's device that is always full, under the name that the writer will use.
    (tmp_path / f".shard-00002.safetensors.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(PersonaProbeError, match=r"^no space left on .* while writing shard-00002"):
        store.write(2, values[2])
    assert store.missing() == [1, 2, 3]
    assert not list(tmp_path.glob(".*"))
    assert write(tmp_path).verify().shards == 4


def test_a_store_of_before_a_provenance_field_existed_is_still_its_own(tmp_path: Path) -> None:
    import json

    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    told = (["a", "b"], ["x", "y"], ["f", "g"])
    known = Provenance(model="m", model_hash="0" * 16)
    saved = ActivationSet.of(torch.ones(2, 1, 3), (Site(0),), "prompt_mean", *told, known)
    folder = saved.save(tmp_path / "store")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["provenance"].pop("adapter_hash") is None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert ActivationSet.open(folder).values.equal(saved.values)
