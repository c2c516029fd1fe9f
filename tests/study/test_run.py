"""A study from models to verdict: complete, deterministic, resumable, and never mixed up."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.files import read_json, read_jsonl
from tests.small_study import small_study

RESULTS = (
    "verdict.json", "effects.json", "arms.json", "profiles.json", "dose.json", "replies.jsonl",
    "mediation.json", "tiers.json", "transfer.json", "rank_curve.json", "steerability.json",
    "harm_ledger.json", "refusal.json", "variants.jsonl", "robustness.json", "guards.json",
)  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in RESULTS}


def test_every_stage_leaves_its_file_and_every_rung_an_answer(finished_run: Path) -> None:
    from persona_probe.study.stage import STAGES

    for stage in STAGES:
        assert stage.done(finished_run), stage.name
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
    from persona_probe.study.trial import ON_BAND

    rows = [r for r in read_jsonl(finished_run / "replies.jsonl") if r["temperature"] == 0]
    prompts: dict[str, list[str]] = {}
    for row in rows:
        prompts.setdefault(row["arm"], []).append(row["prompt"])
    kinds = {row["arm"]: row["arm_kind"] for row in rows}
    whole = prompts["helpful_only"]
    assert len(set(whole)) == len(whole) > 10
    for arm, asked in prompts.items():
        if kinds[arm] in ON_BAND:
            assert set(asked) < set(whole)
        else:
            assert asked == whole
    assert {"finetuned", "steered", "ablated", "wrong", "sign_flip", "system_prompt"} <= set(
        kinds.values()
    )
    # Another constitution's direction and the reverse are controls on the same prompts.
    assert not {"wrong", "sign_flip", "trained"} & set(ON_BAND)


def test_the_trained_vector_stands_beside_the_direction_and_decides_nothing(
    finished_run: Path,
) -> None:
    rows = read_json(finished_run / "training.json")
    chosen = read_json(finished_run / "selection.json")["chosen"]
    assert [row["persona"] for row in rows] == list(chosen)
    for row in rows:
        assert row["strength"] <= row["longest"] * (1 + 1e-5)
        assert row["longest"] == chosen[row["persona"]]["strength"]
        assert row["layer"] == chosen[row["persona"]]["layer"]
        assert row["nats"]["trained"] <= row["nats"]["start"]
    arms = {a["arm"]: a for a in read_json(finished_run / "arms.json")}
    assert arms["trained/virtue"]["n"] == arms["steered/virtue"]["n"]
    effects = read_json(finished_run / "effects.json")
    found = {e["metric"] for e in effects if e["arm"] == "trained/virtue"}
    assert {"ER", "ER_J", "profile_moved"} <= found
    for ladder in read_json(finished_run / "verdict.json")["personas"].values():
        assert not any("trained vector" in rung["evidence"] for rung in ladder["rungs"])


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

    with pytest.raises(RequestError, match=r"holds another study \(its seed is 0, this one's 1\)"):
        run_study(small_study(tiny_llama_folder, small_pack, seed=1), finished_run)
    with pytest.raises(RequestError, match=r"holds another study \(its model is"):
        run_study(small_study(tiny_qwen_folder, small_pack), finished_run)


SCRIPT = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.small_study import small_study
from persona_probe.study.run import run_study
run_study(small_study(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), 'cpu')
"""


def command_for(model: Path, pack: Path, folder: Path) -> list[str]:
    """A small study in a process of its own."""
    root = str(Path(__file__).parents[2])
    return [sys.executable, "-c", SCRIPT, str(model), str(pack), str(folder), root]


def killed_when(command: list[str], ripe: Callable[[], bool], seconds: float = 0.0) -> None:
    """Start it, and kill -9 it as soon as `ripe`, or that much later."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    while not ripe() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(seconds)
    assert process.poll() is None, f"it ended by itself with {process.returncode}: killed too late"
    process.kill()
    process.wait()


def test_a_run_killed_twice_continues_to_the_same_numbers(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path, tmp_path: Path
) -> None:
    """Once between two stages, once between two pieces of one."""
    from persona_probe.study.status import status_of

    folder = tmp_path / "killed"
    command = command_for(tiny_llama_folder, small_pack, folder)
    for landmark in ("directions/README.md", ".pieces/reply/shared.json"):
        killed_when(command, (folder / landmark).exists)
        assert not (folder / "verdict.json").exists(), "killed too late to test anything"
    status = status_of(folder)
    states = {stage.name: stage.state for stage in status.stages}
    assert not status.running
    assert (states["select"], states["reply"], states["judge"]) == ("done", "interrupted", "left")
    assert "study resume" in status.in_words
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == contents(finished_run)
    assert not list(folder.rglob("*.part*"))
    assert not (folder / ".pieces").exists()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_run_killed_in_every_stage_continues_to_the_same_numbers(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path, tmp_path: Path
) -> None:
    from persona_probe.study.stage import NAMES, read_log

    folder = tmp_path / "killed"
    command = command_for(tiny_llama_folder, small_pack, folder)
    for number, name in enumerate(NAMES):

        def under_way(name: str = name) -> bool:
            return name in read_log(folder)

        killed_when(command, under_way, seconds=0.02 * (number % 4))
        assert (folder / "stages.json").exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == contents(finished_run)
    for path in finished_run.rglob("*.json*"):
        relative = path.relative_to(finished_run)
        if relative.name not in ("stages.json", ".resume.json"):
            assert (folder / relative).read_bytes() == path.read_bytes(), relative


@pytest.mark.parametrize("which", ["judge", "second_judge"])
def test_a_judge_that_cannot_be_had_is_refused_before_any_work(
    which: str, tiny_llama_folder: Path, small_pack: Path, tmp_path: Path
) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.study.run import run_study

    study = small_study(tiny_llama_folder, small_pack, **{which: "chat"})
    with pytest.raises(RequestError, match="chat=MODEL"):
        run_study(study, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "study.json").exists()


def test_a_folder_that_is_at_work_is_left_alone(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path
) -> None:
    from persona_probe.study.run import run_study
    from persona_probe.study.stage import alone
    from persona_probe.study.status import status_of

    with alone(finished_run):
        assert status_of(finished_run).running
        with pytest.raises(RequestError, match=r"another process \(\d+\) is running the study"):
            run_study(small_study(tiny_llama_folder, small_pack), finished_run, device="cpu")
    assert not status_of(finished_run).running


def test_one_stage_is_done_again_alone_and_gives_the_same(
    finished_run: Path, tmp_path: Path
) -> None:
    from persona_probe.study.request import planned_in
    from persona_probe.study.run import run_study

    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "guards.json").write_text("{}")
    study = planned_in(copy)
    run_study(study, copy, "cpu", only="guard")
    assert (copy / "guards.json").read_text() == (finished_run / "guards.json").read_text()
    (copy / "refusal.json").unlink()
    with pytest.raises(RequestError, match=r"--only judge: the stage 'refusal' before it is not"):
        run_study(study, copy, "cpu", only="judge")
    with pytest.raises(RequestError, match="one stage alone, or where to start"):
        run_study(study, copy, "cpu", only="judge", start="reply")


def test_a_judge_that_read_nothing_costs_numbers_and_never_the_run(
    finished_run: Path, tmp_path: Path
) -> None:
    """What a dead endpoint leaves behind: every reply unscored, with its reason."""
    from persona_probe.study.request import planned_in
    from persona_probe.study.run import run_study

    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    rows = read_jsonl(copy / "replies.jsonl")
    dead = [row | {"outcome": "unscored", "reason": "the endpoint is gone"} for row in rows]
    (copy / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dead))
    study = planned_in(copy)
    run_study(study, copy, "cpu", only="guard")
    verdict = run_study(study, copy, "cpu", only="judge")
    for ladder in verdict["personas"].values():
        passed = {rung["rung"]: rung["passed"] for rung in ladder["rungs"]}
        assert not any(passed[rung] for rung in ("L2", "L3", "L4", "L6", "L7"))
    assert any("could not read" in flag for flag in verdict["flags"])
    arms = read_json(copy / "arms.json")
    assert all(arm["safe"]["value"] is None and arm["unscored"] == arm["n"] for arm in arms)


def test_thresholds_that_move_after_evaluation_began_are_found_out(
    finished_run: Path, tmp_path: Path
) -> None:
    from persona_probe.errors import PersonaProbeError
    from persona_probe.study.request import planned_in
    from persona_probe.study.run import run_study

    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    plan = read_json(copy / "study.json")
    plan["thresholds"]["effect"] = 0.1
    (copy / "study.json").write_text(json.dumps(plan))
    with pytest.raises(PersonaProbeError, match="thresholds is not what was frozen"):
        run_study(planned_in(copy), copy, "cpu", only="judge")


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


def test_multiple_choice_is_asked_of_every_steered_model_and_says_when_it_cannot_tell(
    finished_run: Path,
) -> None:
    guards = read_json(finished_run / "guards.json")
    asked_of = {name: guard.get("multiple_choice") for name, guard in guards.items()}
    assert {name for name, asked in asked_of.items() if asked} == {
        "steered/deontology",
        "steered/virtue",
    }
    for asked in filter(None, asked_of.values()):
        assert asked["own"]["n"] == asked["before"]["n"] == asked["finetuned"]["n"] == 8
        assert asked["chance"] == pytest.approx(1 / 3)
        # A random model knows nothing.
        assert asked["unmeasured"].startswith("multiple choice not measured: the model is at chan")
    flags = read_json(finished_run / "verdict.json")["flags"]
    assert sum(flag.startswith("multiple choice not measured") for flag in flags) == 1
