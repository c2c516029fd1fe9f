"""The thin line through every room, on tiny random Llama, Qwen2 and GPT-2 folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., dict[str, Any]]


def test_extract_find_validate_compare_steer_sweep_evaluate(
    tiny_folders: Path, small_pack: Path, tmp_path: Path, call: Call
) -> None:
    activations, directions = tmp_path / "activations", tmp_path / "directions"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"What is {i}?"}], "family": f})
            + "\n"
            for i in range(12)
            for f in (f"other-{i % 4}",)
        )
    )
    found = call("extract", tiny_folders, small_pack, "--out", activations, "--adapter", "tuned")
    bare, tuned = (activations / name / "last_prompt_token" for name in ("bare", "tuned"))
    assert found["folders"] == [str(bare), str(tuned)]

    found = call("find", bare, "--out", directions)
    assert {row["persona"] for row in found["directions"]} == {"deontology", "virtue"}
    assert len(found["directions"]) == 2 * 3

    found = call("validate", directions, bare)
    assert all(0 <= row["auroc"]["value"] <= 1 for row in found["rows"])

    call("extract", tiny_folders, prompts, "--out", tmp_path / "pair", "--adapter", "tuned")
    pair = [tmp_path / "pair" / name / "last_prompt_token" for name in ("bare", "tuned")]
    found = call("compare", *pair, "--directions", directions)
    assert {row["persona"] for row in found["rows"]} == {"deontology", "virtue"}

    chosen = ["--directions", directions, "--persona", "virtue", "--layer", 1]
    found = call("steer", tiny_folders, "Hello?", *chosen, "--strength", 4, "--max-new-tokens", 8)
    assert found["steered"] != found["unsteered"]

    found = call(
        "sweep", tiny_folders, "--directions", directions, "--pack", small_pack,
        "--sites", "1", "--strengths", "0,2", "--adapter", "tuned", "--n", 4,
    )  # fmt: skip
    by_strength = {row["strength"]: row["refusal_probability"] for row in found["rows"]}
    assert by_strength[0.0] != by_strength[2.0]

    found = call("evaluate", tiny_folders, "--pack", small_pack, "--adapter", "tuned", "--n", 8)
    estimates = found["rows"][0]["estimates"]
    assert {"safe on harmful", "safe, tier T2", "safe, privacy", "profile RULE"} <= set(estimates)


def test_strength_zero_is_the_unsteered_reply(
    tiny_llama_folder: Path, small_pack: Path, tmp_path: Path, call: Call
) -> None:
    call("extract", tiny_llama_folder, small_pack, "--out", tmp_path / "a", "--without-bare",
         "--adapter", "other")  # fmt: skip
    call("find", tmp_path / "a" / "other" / "last_prompt_token", "--out", tmp_path / "d")
    found = call("steer", tiny_llama_folder, "Hello?", "--directions", tmp_path / "d",
                 "--persona", "virtue", "--layer", 1, "--strength", 0,
                 "--max-new-tokens", 8)  # fmt: skip
    assert found["steered"] == found["unsteered"]


def test_study_run_prints_the_verdict_and_writes_the_report(
    tiny_llama_folder: Path, small_pack: Path, finished_run: Path, tmp_path: Path, call: Call
) -> None:
    found = call("report", finished_run, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert found["report"] == str(tmp_path / "page.html")
    assert "<html" in page
    assert "Deontology" in page
