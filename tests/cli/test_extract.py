"""`persona-probe extract` as a researcher types it, on tiny folders."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command's exit code, standard output and standard error."""
    from persona_probe.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["persona-probe", "extract", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        code = stopped.value.code
        assert code is None or isinstance(code, int)
        return code or 0, said.out, said.err

    return call


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"What is {'so ' * i}?"}], "label": f"{i % 2}"}
        for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(
    tiny_llama_folder: Path, prompts: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "acts"
    asked = [tiny_llama_folder, prompts, "--out", out, "--adapter", "tuned", "--dry-run"]
    code, said, _ = run(*asked, "--json")
    costs = json.loads(said)
    assert code == 0
    assert costs["rows"] == {"last_prompt_token": 9}
    assert costs["states"] == 2
    assert costs["disk_bytes"] == 2 * 9 * 3 * 32 * 4
    assert costs["seconds"] > 0
    assert not out.exists()
    code, said, _ = run(*asked)
    assert "9 conversations (0 left out)" in said
    assert "padding avoided" in said


def test_parts_verify_merge_and_a_flipped_byte(
    tiny_llama_folder: Path, prompts: Path, tmp_path: Path, run: Run
) -> None:
    asked = [tiny_llama_folder, prompts, "--shard-size", 2]
    for n in (1, 2):
        assert run(*asked, "--out", tmp_path / f"p{n}", "--shard", f"{n}/2")[0] == 0
    code, _, said = run("--out", tmp_path / "p1", "--verify")
    assert code == 1
    assert "missing" in said
    whole = tmp_path / "whole"
    code, said, _ = run("--out", whole, "--merge", tmp_path / "p1", "--merge", tmp_path / "p2")
    assert (code, "5 shards, all as written" in said) == (0, True)
    victim = whole / "bare" / "last_prompt_token" / "shard-00003.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    code, _, said = run("--out", whole, "--verify")
    assert code == 1
    assert "shard-00003" in said
    assert "delete" in said


def test_the_crossed_design_reads_both_writers_under_both_weights(
    tiny_llama_folder: Path, prompts: Path, tmp_path: Path, run: Run
) -> None:
    from persona_probe.activations.activation_set import ActivationSet

    out = tmp_path / "acts"
    asked = [tiny_llama_folder, prompts, "--out", out, "--adapter", "tuned", "--crossed"]
    asked += ["--max-new-tokens", 5, "--positions", "response_mean"]
    code, said, _ = run(*asked, "--json")
    assert code == 0, said
    before, after = (ActivationSet.open(out / name / "response_mean") for name in ("bare", "tuned"))
    assert before.ids == after.ids
    assert before.metadata is not None
    writers = [row["written_by"] for row in before.metadata]
    assert set(writers) == {"bare", "tuned"}
    assert before.texts is not None
    said_by = dict(zip(before.ids, before.texts, strict=True))
    assert said_by["line-1@bare"] != said_by["line-1@tuned"], "the writers differ"
    assert (before.values - after.values).norm(dim=-1).min() > 0.01, "the readers differ"
    written = sorted(path.name for path in (out / "replies").iterdir())
    assert written == ["replies-bare+tuned-00000.jsonl", "replies-bare+tuned.json"]
    code, said, _ = run(*asked, "--json")
    assert (code, json.loads(said)["new_rows"]) == (0, 0)
    code, _, said = run(*asked[:-4], "--max-new-tokens", 6, "--positions", "response_mean")
    assert code == 2
    assert "max_new_tokens = 5, not 6" in said


def test_two_checkpoints_over_the_same_ids(
    tiny_llama_folder: Path, tiny_qwen_folder: Path, prompts: Path, tmp_path: Path, run: Run
) -> None:
    from persona_probe.activations.activation_set import ActivationSet

    other = tmp_path / "finetuned"
    shutil.copytree(tiny_llama_folder, other)
    out = tmp_path / "acts"
    code, said, _ = run(tiny_llama_folder, prompts, "--out", out, "--after", other, "--json")
    assert code == 0
    assert [Path(folder).parent.name for folder in json.loads(said)["folders"]] == [
        "bare",
        "finetuned",
    ]
    before, after = (
        ActivationSet.open(out / name / "last_prompt_token") for name in ("bare", "finetuned")
    )
    assert before.values.equal(after.values), "the weights are the same"
    assert before.provenance.prompts_hash == after.provenance.prompts_hash
    code, _, said = run(
        tiny_llama_folder, prompts, "--out", tmp_path / "b", "--after", tiny_qwen_folder
    )
    assert code == 2
    assert "differ, so they would not read the same token ids" in said


def test_wrong_requests_are_one_sentence_and_exit_code_2(
    tiny_llama_folder: Path, prompts: Path, tmp_path: Path, run: Run
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n{"messages": []}\n')
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n{"messages"\n')
    long = tmp_path / "long.txt"
    long.write_text("Hi\n" + "why " * 400 + "\n")
    there = [tiny_llama_folder, prompts, "--out", tmp_path / "out"]
    wrong: list[tuple[list[Any], str]] = [
        ([tiny_llama_folder, prompts], "--out DIR"),
        (["--out", tmp_path / "out"], "extract MODEL PROMPTS"),
        ([tmp_path / "no", prompts, "--out", tmp_path / "out"], "no such folder"),
        ([tiny_llama_folder, tmp_path / "no.jsonl", "--out", tmp_path / "out"], "no such file"),
        ([tiny_llama_folder, bad, "--out", tmp_path / "out"], "bad.jsonl, line 2"),
        ([tiny_llama_folder, broken, "--out", tmp_path / "out"], "broken.jsonl, line 2: not JSON"),
        ([tiny_llama_folder, long, "--out", tmp_path / "out"], "'line-2' has"),
        ([*there, "--sites", "9"], "layer 9"),
        ([*there, "--positions", "response_mean"], "no tokens at position 'response_mean'"),
        ([*there, "--positions", "regex:("], "is not a regular expression"),
        ([*there, "--adapter", "nobody"], "no adapter 'nobody'"),
        ([*there, "--without-bare"], "nothing is left to read"),
        ([*there, "--shard", "3/2"], "3/2"),
        ([*there, "--shard", "two"], "write I/N"),
        ([*there, "--too-long", "ignore"], "refuse, skip, truncate"),
        ([*there, "--store-dtype", "int8"], "float32 or float16"),
        ([*there, "--thinking"], "no thinking mode"),
        (["--out", tmp_path / "nothing", "--verify"], "holds no activations"),
    ]
    for arguments, expected in wrong:
        code, said, error = run(*arguments)
        assert code == 2, (arguments, error)
        assert expected in error, (expected, error)
        assert error.count("\n") == 1
        assert not said


def test_long_ones_are_skipped_aloud(tiny_llama_folder: Path, tmp_path: Path, run: Run) -> None:
    long = tmp_path / "long.txt"
    long.write_text("Hi\n" + "why " * 400 + "\n")
    asked = [tiny_llama_folder, long, "--out", tmp_path / "out", "--too-long", "skip"]
    code, said, error = run(*asked, "--json")
    assert code == 0
    assert "left out: line-2" in error
    assert json.loads(said)["rows"] == {str(tmp_path / "out" / "bare" / "last_prompt_token"): 1}
