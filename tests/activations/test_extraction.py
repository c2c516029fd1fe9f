"""From prompts to folders, in bounded pieces, whatever happens in between."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.activations.reading import Reading
    from persona_probe.models.chat import Conversation

POSITIONS = ["last_prompt_token", "assistant_turns"]


@pytest.fixture(scope="module")
def conversations() -> list["Conversation"]:
    from persona_probe.models.chat import Conversation, Message

    rng = random.Random(0)
    return [
        Conversation(
            (
                Message("user", "why " * rng.randint(1, 20)),
                Message("assistant", "so " * rng.randint(1, 20)),
                *(
                    (Message("user", "And then?"), Message("assistant", "Then that."))
                    if i % 3 == 0
                    else ()
                ),
            ),
            id=f"c{i}",
            label=("kind", "blunt")[i % 2],
            family=f"f{i % 5}",
            metadata={"source": i},
        )
        for i in range(23)
    ]


@pytest.fixture(scope="module")
def reading(tiny_model: Any, conversations: list["Conversation"]) -> "Reading":
    from persona_probe.activations.reading import read

    return read(tiny_model, conversations, POSITIONS)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_stored_is_what_capture_gives(
    tiny_model: Any, reading: "Reading", tmp_path: Path
) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.activations.capture import capture
    from persona_probe.activations.extraction import Wanted, extract

    states = {"bare": None, "tuned": "tuned"}
    wanted = Wanted(shard_conversations=5)
    found = extract(tiny_model, reading, tiny_model.sites, states, tmp_path, wanted)
    assert [(each.adapter, each.position) for each in found] == [
        (adapter, position) for adapter in (None, "tuned") for position in POSITIONS
    ]
    for each in found:
        stored = ActivationSet.open(each.folder)
        expected = capture(tiny_model, reading, tiny_model.sites, adapter=each.adapter)
        captured = expected[each.position]
        # Shards are other batches: matrix products of another shape sum in another order.
        assert (stored.values - captured.values).abs().max() < 1e-4
        assert stored.ids == captured.ids
        assert stored.labels == captured.labels
        assert stored.provenance == captured.provenance
        assert len(list(each.folder.glob("shard-*.safetensors"))) == 5
    turns = ActivationSet.open(tmp_path / "bare" / "assistant_turns")
    assert turns.metadata is not None
    assert turns.metadata[turns.ids.index("c3#1")] == {"source": 3}


def test_moments_stream_along_and_do_without_a_store(
    tiny_model: Any, reading: "Reading", tmp_path: Path
) -> None:
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.activations.extraction import Wanted, extract
    from persona_probe.activations.moments_file import MomentsFile

    arguments = (tiny_model, reading, tiny_model.sites, {"bare": None})
    extract(*arguments, tmp_path / "stored", Wanted(shard_conversations=5))
    extract(*arguments, tmp_path / "not", Wanted(store=False, shard_conversations=5))
    assert [p.name for p in (tmp_path / "not" / "bare" / "assistant_turns").iterdir()] == [
        "moments.safetensors"
    ]
    for position in POSITIONS:
        stored = ActivationSet.open(tmp_path / "stored" / "bare" / position)
        for where in ("stored", "not"):
            moments = MomentsFile.open(tmp_path / where / "bare" / position).finished()
            for label in ("kind", "blunt"):
                values = stored.where(labels=[label]).values.double()
                assert moments.count(label) == len(values)
                torch.testing.assert_close(moments.mean(label), values.mean(dim=0))
                site = stored.sites[1]
                expected = torch.cov(values[:, 1].T)
                torch.testing.assert_close(moments.covariance(site, label), expected)


def test_parts_join_to_the_bytes_of_one_run(
    tiny_model: Any, reading: "Reading", tmp_path: Path
) -> None:
    from persona_probe.activations.extraction import Wanted, extract
    from persona_probe.activations.folders import merge_folders
    from persona_probe.errors import PersonaProbeError, RequestError

    arguments = (tiny_model, reading, tiny_model.sites, {"bare": None})
    extract(*arguments, tmp_path / "whole", Wanted(shard_conversations=4))
    parts = [tmp_path / f"part{n}" for n in (1, 2, 3)]
    for n, part in enumerate(parts, start=1):
        extract(*arguments, part, Wanted(part=(n, 3), shard_conversations=4))
    with pytest.raises((RequestError, PersonaProbeError), match="missing"):
        merge_folders(tmp_path / "two", parts[:2])
    merge_folders(tmp_path / "joined", parts)
    whole, joined = digests(tmp_path / "whole"), digests(tmp_path / "joined")
    shards = {name: digest for name, digest in whole.items() if "moments" not in name}
    assert {name: joined.get(name) for name in shards} == shards
    assert joined.keys() == whole.keys(), "moments are joined too"


def test_a_folder_of_something_else_is_refused(
    tiny_model: Any, conversations: list["Conversation"], reading: "Reading", tmp_path: Path
) -> None:
    from persona_probe.activations.extraction import Wanted, extract
    from persona_probe.activations.reading import read
    from persona_probe.errors import RequestError

    extract(tiny_model, reading, tiny_model.sites, {"bare": None}, tmp_path)
    other = read(tiny_model, conversations[1:], POSITIONS)
    wrong: list[tuple[Any, Any, Any, Any, str]] = [
        (other, tiny_model.sites, {"bare": None}, Wanted(), "prompts"),
        (reading, tiny_model.sites[:2], {"bare": None}, Wanted(), "sites"),
        (reading, tiny_model.sites, {"bare": "tuned"}, Wanted(), "adapter"),
        (reading, tiny_model.sites, {"bare": None}, Wanted(dtype="float16"), "dtype"),
    ]
    before = digests(tmp_path)
    for asked, sites, states, wanted, said in wrong:
        with pytest.raises(RequestError, match=f"holds other activations, with {said}"):
            extract(tiny_model, asked, sites, states, tmp_path, wanted)
    assert digests(tmp_path) == before


def test_nan_is_never_stored_and_what_was_finished_is_kept(
    tiny_model: Any, reading: "Reading", tmp_path: Path
) -> None:
    from persona_probe.activations.extraction import Wanted, extract
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.site import Site

    calls = []

    def spoil_the_third_shard(resid: Any) -> Any:
        calls.append(1)
        return resid * float("nan") if len(calls) > 2 else None

    arguments = (tiny_model, reading, tiny_model.sites, {"bare": None}, tmp_path)
    wanted = Wanted(shard_conversations=5)
    with (
        tiny_model.hooks([(Site(1), spoil_the_third_shard)]),
        pytest.raises(PersonaProbeError, match="'c10' at layer 1 are NaN"),
    ):
        extract(*arguments, wanted)
    kept = sorted(path.name for path in (tmp_path / "bare" / POSITIONS[0]).glob("*.safetensors"))
    assert kept == ["shard-00000.safetensors", "shard-00001.safetensors"]
    found = extract(*arguments, wanted)
    assert next(each.new_rows for each in found) == 13
    extract(*arguments[:4], tmp_path / "again", wanted)
    assert digests(tmp_path / "bare") == digests(tmp_path / "again" / "bare")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    tiny_model: Any, reading: "Reading", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from persona_probe.activations.extraction import Wanted, extract
    from persona_probe.errors import PersonaProbeError

    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    arguments = (tiny_model, reading, tiny_model.sites, {"bare": None})
    wanted = Wanted(shard_conversations=5)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(PersonaProbeError, match="no space left"):
            extract(*arguments, tmp_path / "a", wanted)
    extract(*arguments, tmp_path / "a", wanted)
    extract(*arguments, tmp_path / "b", wanted)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.slow
def test_the_command_survives_kill_9_at_any_time(tiny_llama_folder: Path, tmp_path: Path) -> None:
    """Killed again and again at random moments, it ends with the bytes of an undisturbed run."""
    prompts = tmp_path / "prompts.jsonl"
    rng = random.Random(1)
    rows = [
        {
            "messages": [{"role": "user", "content": "why " * rng.randint(1, 60)}],
            "label": str(i % 2),
        }
        for i in range(400)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "persona_probe", "extract", str(tiny_llama_folder)]
        command += [str(prompts), "--out", str(out), "--adapter", "tuned", "--shard-size", "4"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "calm").wait() == 0
    disturbed, killed = tmp_path / "disturbed", 0
    while killed < 3:
        process = start(disturbed)
        before = len(list(disturbed.rglob("shard-*.json")))
        while process.poll() is None and len(list(disturbed.rglob("shard-*.json"))) == before:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        if process.poll() is not None:
            break  # Everything was written before it could be killed again.
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    assert killed >= 1
    assert start(disturbed).wait() == 0
    assert digests(disturbed) == digests(tmp_path / "calm")


def test_positions_and_folders_have_names_of_their_own(tmp_path: Path) -> None:
    from persona_probe.activations.jobs import jobs, position_folder, split_positions
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef

    assert split_positions(["a, b", "regex:x, y", "c"]) == ["a", "b", "regex:x, y", "c"]
    assert position_folder("response_first:5") == "response_first-5"
    assert position_folder("regex:a/b") != position_folder("regex:a:b")
    assert "/" not in position_folder("regex:a/b")
    with pytest.raises(RequestError, match="nothing is left to read"):
        jobs(ModelRef(str(tmp_path)), [], bare=False)
