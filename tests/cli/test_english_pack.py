"""The pack in ordinary English, end to end on a tiny random Llama with a chat template."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHATML, DECODER, _write_folder
from tests.small_study import small_study

CONTEXT = 1024


def _roomy_llama(vocab_size: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = DECODER | {"max_position_embeddings": CONTEXT}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **settings))


@pytest.fixture(scope="module")
def roomy_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Room for whole statements, which a tokenizer of a few hundred entries makes long."""
    folder = tmp_path_factory.mktemp("models") / "roomy-llama"
    return _write_folder(folder, _roomy_llama, CHATML, ["q_proj", "v_proj", "o_proj"])


@pytest.fixture(scope="module")
def brief_english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped pack, with little room for replies: a random model never stops by itself."""
    from persona_probe.personas.pack import SHIPPED

    folder = tmp_path_factory.mktemp("packs") / "english"
    shutil.copytree(SHIPPED / "english", folder)
    file = folder / "pack.toml"
    file.write_text(file.read_text().replace("max_new_tokens = 200", "max_new_tokens = 6"))
    return folder


def test_evaluate_measures_outcomes_profile_instrument_and_positive_control(
    roomy_llama: Path, brief_english: Path, tmp_path: Path, call: Any
) -> None:
    found = call(
        "evaluate", roomy_llama, "--pack", brief_english, "--adapter", "tuned", "--n", 20,
        "--forms", 2, "--positive-control", "--out", tmp_path / "replies.jsonl",
    )  # fmt: skip
    estimates = found["rows"][0]["estimates"]
    assert {"safe on harmful", "safe, tier T3", "profile OVERSIGHT"} <= set(estimates)
    instrument = found["instruments"]["tuned"]
    assert 0 < instrument["in_words"] <= instrument["items"] < 20
    assert instrument["order_effect"]["value"] is None
    listed = found["listings"]["tuned"]
    assert listed["scenarios"] == 20 - instrument["items"] > 0
    assert 0 <= listed["label_mass"] <= 1
    control = found["positive_control"]
    assert control["of"] == 4
    assert set(control["personas"]["service"]["shift"]) == {
        "RULE", "MEANS", "OUTCOME", "IMPARTIAL", "INSTR-HARM", "CHARACTER", "CONTEXT",
        "OVERSIGHT", "HUMANITY",
    }  # fmt: skip
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 60


def test_a_suite_of_ones_own_takes_the_place_of_the_packs(
    roomy_llama: Path, brief_english: Path, tmp_path: Path, call: Any
) -> None:
    suite = tmp_path / "mine.csv"
    suite.write_text("request,policy\nDo it.,one\nDo that.,two\n")
    found = call("evaluate", roomy_llama, "--pack", brief_english, "--suite", suite, "--n", 9,
                 "--forms", 1)  # fmt: skip
    estimates = found["rows"][0]["estimates"]
    assert {"safe, one", "safe, two"} <= set(estimates)
    assert "benign refused" not in estimates


def test_extract_and_find_work_on_its_questions(
    roomy_llama: Path, brief_english: Path, tmp_path: Path, call: Any
) -> None:
    call("extract", roomy_llama, brief_english, "--out", tmp_path / "a")
    found = call("find", tmp_path / "a" / "bare" / "last_prompt_token", "--out", tmp_path / "d")
    personas = {row["persona"] for row in found["directions"]}
    assert {"deontology", "consequentialism", "virtue", "service"} <= personas


@pytest.mark.slow
def test_a_study_runs_to_its_verdict(
    roomy_llama: Path, brief_english: Path, tmp_path: Path
) -> None:
    from persona_probe.study.run import run_study

    run_study(small_study(roomy_llama, brief_english), tmp_path / "run", device="cpu")
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict
