"""A study from models to verdict: complete, deterministic, resumable, and never mixed up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.files import read_json, read_jsonl
from tests.small_study import small_study

RESULTS = ("verdict.json", "effects.json", "arms.json", "profiles.json", "dose.json")


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in RESULTS}


def test_every_stage_leaves_its_file_and_every_rung_an_answer(finished_run: Path) -> None:
    from persona_probe.study.run import STAGES

    for _, last_file, _ in STAGES:
        assert (finished_run / last_file).exists(), last_file
    verdict = read_json(finished_run / "verdict.json")
    assert set(verdict["personas"]) == {"deontology", "virtue"}
    for ladder in verdict["personas"].values():
        assert [rung["rung"] for rung in ladder["rungs"]] == [f"L{i}" for i in range(8)]
        assert all(rung["evidence"] for rung in ladder["rungs"])
    assert any("case study" in flag for flag in verdict["flags"])
    assert any("refusal-only" in flag for flag in verdict["flags"])


def test_selection_and_evaluation_never_share_a_prompt_family(
    finished_run: Path, small_pack: Path
) -> None:
    from persona_probe.personas.pack import load_pack

    split = load_pack(small_pack).split(0)
    families = {row["family"] for row in read_jsonl(finished_run / "replies.jsonl")}
    assert families
    assert families <= split.evaluate


def test_replies_cover_every_condition_with_the_same_prompts(finished_run: Path) -> None:
    rows = [r for r in read_jsonl(finished_run / "replies.jsonl") if r["temperature"] == 0]
    prompts: dict[str, list[str]] = {}
    for row in rows:
        prompts.setdefault(row["arm"], []).append(row["prompt"])
    kinds = {row["arm"]: row["arm_kind"] for row in rows}
    whole = prompts["helpful_only"]
    assert len(set(whole)) == len(whole) > 10
    for arm, asked in prompts.items():
        if kinds[arm] in ("random", "covariance", "shuffled", "ablated_random"):
            assert set(asked) < set(whole)
        else:
            assert asked == whole
    assert {"finetuned", "steered", "ablated", "wrong", "sign_flip", "system_prompt"} <= set(
        kinds.values()
    )


def test_running_a_finished_study_again_does_nothing(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path
) -> None:
    from persona_probe.study.run import run_study

    times = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*.json")}
    run_study(small_study(tiny_llama_folder, small_pack), finished_run, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*.json")} == times


def test_another_plan_in_the_same_folder_is_refused(
    finished_run: Path, tiny_llama_folder: Path, tiny_qwen_folder: Path, small_pack: Path
) -> None:
    from persona_probe.study.run import run_study

    with pytest.raises(RequestError, match=r"holds another study.*study_hash"):
        run_study(small_study(tiny_llama_folder, small_pack, seed=1), finished_run)
    with pytest.raises(RequestError, match=r"holds another study.*model_hash"):
        run_study(small_study(tiny_qwen_folder, small_pack), finished_run)


def test_a_run_killed_at_any_stage_continues_to_the_same_numbers(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path, tmp_path: Path
) -> None:
    """Kill -9 as soon as a file of a middle stage appears, twice, then let it finish."""
    folder = tmp_path / "killed"
    script = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[4])\n"
        "from tests.small_study import small_study\n"
        "from persona_probe.study.run import run_study\n"
        "run_study(small_study(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), 'cpu')\n"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script]
    command += [str(tiny_llama_folder), str(small_pack), str(folder), root]
    for landmark in ("directions/README.md", "replies.shared.part.jsonl"):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (folder / landmark).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "verdict.json").exists(), "killed too late to test anything"
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == contents(finished_run)
    assert not list(folder.rglob("*.part*"))


def test_the_steering_vector_file_gives_the_steered_replies_with_plain_pytorch(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path
) -> None:
    """A new reader: safetensors, transformers and one hook; no code of this package."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with safe_open(finished_run / "directions/steering/virtue.safetensors", "pt") as file:
        vector = file.get_tensor("vector")
        about = json.loads(file.metadata()["persona_probe"])
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_folder)

    def add(_module: object, _inputs: object, resid: torch.Tensor) -> torch.Tensor:
        if resid.shape[1] > 1:
            resid = resid.clone()
            resid[:, -1] += vector
        return resid

    def reply(request: str) -> str:
        chat = [
            {"role": "system", "content": "You are an advisor."},
            {"role": "user", "content": request},
        ]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        out = model.generate(**ids, max_new_tokens=6, do_sample=False)
        return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))

    rows = [
        row
        for row in read_jsonl(finished_run / "replies.jsonl")
        if row["arm"] == "steered/virtue" and row["temperature"] == 0
    ]
    assert about["positions"] == "last_prompt_token"
    plain = [reply(row["request"]) for row in rows]
    handle = model.model.layers[about["layer"]].register_forward_hook(add)
    steered = [reply(row["request"]) for row in rows]
    handle.remove()
    assert steered == [row["text"] for row in rows]
    assert steered != plain
