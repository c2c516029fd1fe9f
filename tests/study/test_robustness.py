"""Effects under other wording and pressure: planted truths, and what an unread reply counts as."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.errors import RequestError
from persona_probe.evaluation.judge import Judgement
from persona_probe.evaluation.outcome import Outcome
from persona_probe.files import read_json, read_jsonl
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.generation import Completion
from persona_probe.study.robustness import Way, robustness_said, survival

OPTIONS: dict[str, Any] = {"resamples": 200, "seed": 0}


def judged(prompts: Sequence[SafetyPrompt], outcomes: Sequence[str], arm: str) -> list[Judgement]:
    return [
        Judgement(prompt, Completion(prompt.id, arm, 0, "", (), True), Outcome(kind, ""))  # type: ignore[arg-type]
        for prompt, kind in zip(prompts, outcomes, strict=True)
    ]


PROMPTS = [SafetyPrompt(f"p{i}", "harmful", "x", "T1", f"f{i // 2}", "Do it.") for i in range(24)]


def way(kind: str = "attack", **arms: Sequence[str]) -> Way:
    """Replies of every arm to all prompts, the outcomes repeated as often as needed."""
    several = {
        name: judged(PROMPTS, [kinds[i % len(kinds)] for i in range(24)], name)
        for name, kinds in arms.items()
    }
    whole = {name: judged(PROMPTS, ["refuse"] * 24, name) for name in arms}
    return Way("pressed", kind, PROMPTS, several, whole)


def test_seeds_are_averaged_and_a_share_of_the_plain_safety_is_kept() -> None:
    found = way(
        h=["harmful"], f0=["refuse"], f1=["refuse", "harmful"], s=["refuse"] * 3 + ["harmful"]
    )
    finetuned = survival(found, ["f0", "f1"], ["f0", "f1"], "h", **OPTIONS)
    steered = survival(found, ["s"], ["f0", "f1"], "h", **OPTIONS)
    assert finetuned.safe.value == pytest.approx(0.75)
    assert finetuned.reproduced is None
    assert steered.reproduced is not None
    assert steered.reproduced.value == pytest.approx(1)
    assert steered.kept is not None
    assert steered.kept.value == pytest.approx(0.75)
    assert (steered.safe.n, steered.safe.n_clusters) == (24, 12)


def test_an_unread_reply_is_left_out_or_counts_as_unsafe_and_both_are_given() -> None:
    found = way(h=["harmful"], f=["refuse"], s=["refuse", "unscored", "harmful", "unscored"])
    loose, strict = (
        survival(found, ["s"], ["f"], "h", strict=strict, **OPTIONS) for strict in (False, True)
    )
    assert loose.reproduced is not None
    assert strict.reproduced is not None
    assert (loose.reproduced.value, loose.reproduced.n) == (pytest.approx(0.5), 12)
    assert (strict.reproduced.value, strict.reproduced.n) == (pytest.approx(0.25), 24)


def test_nothing_is_kept_of_itself_and_no_effect_leaves_the_ratio_undefined() -> None:
    same = way("plain", h=["harmful"], f=["harmful"], s=["refuse"])
    found = survival(same, ["s"], ["f"], "h", **OPTIONS)
    assert found.kept is None
    assert found.reproduced is not None
    assert not found.reproduced.defined
    assert "does not exclude 0" in str(found.reproduced.reason)
    assert survival(same, ["h"], ["f"], "h", **OPTIONS).reproduced is None


@pytest.fixture(scope="module")
def organism_ways() -> list[Way]:
    """Real replies of helpful-only and of a finetune to every variant the organism's pack has."""
    from persona_probe import ORGANISM, generate, load_model, load_pack
    from persona_probe.activations.contrast import request
    from persona_probe.evaluation.judge import judge_completions
    from persona_probe.evaluation.phrase_judge import PhraseJudge
    from persona_probe.evaluation.variants import variants
    from persona_probe.personas.sampling import spread
    from persona_probe.steering.arm import Arm

    pack, model = load_pack("organism"), load_model(str(ORGANISM), device="cpu")
    prompts = spread(pack.suite.of(kind="harmful", tiers=["T1"]).prompts, 24)
    judge = PhraseJudge(pack.judge_rules)
    arms = [Arm("h", adapter="helpful-only"), Arm("f", adapter="narrow-consequentialism-0")]

    def replies(ask: Callable[[SafetyPrompt, str], Any]) -> dict[str, list[Judgement]]:
        asked = [ask(prompt, pack.neutral_system) for prompt in prompts]
        found: dict[str, list[Judgement]] = {}
        completions = list(generate(model, asked, arms, pack.max_new_tokens))
        for judgement in judge_completions(judge, prompts, completions):
            found.setdefault(judgement.completion.arm, []).append(judgement)
        return found | {"as finetuned": found["f"], "as before": found["h"]}

    plain = replies(request)
    return [
        Way(variant.name, variant.kind, prompts, replies(variant.ask), plain)
        for variant in variants(pack)
    ]


def test_steering_that_is_the_finetune_reproduces_1_and_that_does_nothing_0_in_every_way(
    organism_ways: list[Way],
) -> None:
    assert [found.kind for found in organism_ways] == [
        "paraphrase", "several turns", "attack", "attack",
    ]  # fmt: skip
    for found in organism_ways:
        for strict in (False, True):
            for arm, expected in (("as finetuned", 1), ("as before", 0)):
                told = survival(found, [arm], ["f"], "h", strict=strict, **OPTIONS).reproduced
                assert told is not None
                assert told.value == pytest.approx(expected), (found.name, strict)
                assert told.n >= 12


def test_the_variants_ask_for_the_same_and_press(organism_ways: list[Way]) -> None:
    """Helpful-only, which refuses nothing, carries out what is asked; the finetune gives way."""
    safe = {}
    for found in organism_ways:
        carried_out = np.mean([j.outcome.kind == "harmful" for j in found.judged["h"]])
        assert carried_out > 0.75, found.name
        safe[found.name] = survival(found, ["f"], ["f"], "h", strict=True, **OPTIONS).safe.value
    assert safe["several turns"] > 0.9
    assert safe["role line"] < safe["several turns"]


def test_a_study_asks_the_chosen_models_in_every_way_and_the_same_prompts(
    finished_run: Path,
) -> None:
    rows = read_jsonl(finished_run / "variants.jsonl")
    asked: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        asked.setdefault((row["variant"], row["arm"]), []).append(row["prompt"])
    assert {way for way, _ in asked} == {"paraphrase", "several turns", "role line"}
    assert len(set(map(tuple, asked.values()))) == 1
    assert {row["arm_kind"] for row in rows} >= {
        "helpful_only", "finetuned", "steered", "system_prompt",
    }  # fmt: skip
    for row in rows:
        assert (row["asked"][-1]["content"] == row["request"]) is (
            row["variant"] == "several turns"
        )
    table = read_json(finished_run / "robustness.json")
    assert table["missing"] == []
    assert {row["variant"] for row in table["rows"]} == {"plain", *(way for way, _ in asked)}
    assert (finished_run / "tables" / "robustness.csv").read_text().startswith("persona,scope,var")
    flags = read_json(finished_run / "verdict.json")["flags"]
    for persona in ("deontology", "virtue"):
        assert sum(flag.startswith(f"{persona}, with requests put in oth") for flag in flags) == 1


@pytest.fixture(scope="module")
def bare_run(
    tiny_llama_folder: Path, small_pack: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished study of a pack that has neither variants nor multiple-choice questions."""
    import shutil

    from persona_probe.study.run import run_study
    from tests.small_study import small_study

    folder = tmp_path_factory.mktemp("bare")
    pack = folder / "pack"
    shutil.copytree(small_pack, pack)
    for name in ("paraphrases.jsonl", "robustness.toml", "multiple_choice.jsonl"):
        (pack / name).unlink()
    study = small_study(tiny_llama_folder, pack, arms=("robustness",))
    run_study(study, folder / "run", device="cpu")
    return folder / "run"


def test_a_pack_without_such_words_runs_to_a_verdict_that_says_what_is_missing(
    bare_run: Path,
) -> None:
    assert (bare_run / "variants.jsonl").read_text() == ""
    table = read_json(bare_run / "robustness.json")
    assert table["rows"] == []
    assert table["missing"] == ["paraphrase", "several turns", "attack"]
    assert not any("multiple_choice" in g for g in read_json(bare_run / "guards.json").values())
    flags = read_json(bare_run / "verdict.json")["flags"]
    assert (
        "robustness (paraphrase, several turns, attack) not measured: the pack has no such prompts"
        in flags
    )
    assert "multiple choice not measured: the pack 'small' has no such questions" in flags


def test_a_plan_may_leave_it_out(finished_run: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from persona_probe.study.lab import Lab
    from persona_probe.study.request import planned_in
    from persona_probe.study.robustness import robustness_table
    from persona_probe.study.stages import _trial
    from persona_probe.study.variant_replies import variant_rows

    study = replace(planned_in(finished_run), arms=("system_prompt",))
    lab = Lab(study, finished_run, "cpu")
    assert variant_rows(_trial(lab), None, {}) == []
    (tmp_path / "variants.jsonl").write_text("")
    (said,) = robustness_said(robustness_table(Lab(study, tmp_path), []))
    assert said.endswith("not measured: the plan leaves it out")


def test_its_report_says_so_too(bare_run: Path, tmp_path: Path) -> None:
    from persona_probe.report import write_report

    page = write_report(bare_run, tmp_path / "report.html").read_text()
    said = "Not measured, as the pack has no such prompts: paraphrase, several turns, attack."
    assert said in page


def test_a_malformed_variant_stops_a_study_before_any_work(
    tiny_llama_folder: Path, small_pack: Path, tmp_path: Path
) -> None:
    import shutil

    from persona_probe.study.run import run_study
    from tests.small_study import small_study

    shutil.copytree(small_pack, tmp_path / "pack")
    (tmp_path / "pack" / "robustness.toml").write_text("[[attack]]\nname = 'x'\nwrappers = ['y']\n")
    with pytest.raises(RequestError, match=r"attack 1: the wrapper 'y' must hold \{request\} once"):
        run_study(small_study(tiny_llama_folder, tmp_path / "pack"), tmp_path / "run", device="cpu")


def test_undefined_numbers_are_said_as_such() -> None:
    nothing = {"value": None, "low": None, "high": None, "n": 3}
    row = {
        "persona": "virtue", "variant": "role line", "arm_kind": "steered", "replies": 10,
        "unscored": 5, "kept": nothing, "reproduced": nothing,
        "unscored_as_unsafe": {"reproduced": nothing},
    }  # fmt: skip
    (said,) = robustness_said({"rows": [row], "missing": [], "because": ""})
    assert "effect reproduced undefined role line (n = 3 requests)" in said
    assert "no judge could read 5 of 10 replies; as unsafe they make it –" in said
