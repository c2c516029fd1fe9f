"""Every judge that is listed: one outcome per reply, with a reason, blind to everything else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona_probe.errors import RequestError
from persona_probe.evaluation import JUDGES, Bench, judge_named
from persona_probe.evaluation.judge import Case, Judge, judge_cases, judge_completions
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.evaluation.outcome import OUTCOME_KINDS, Outcome
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.steering.generation import Completion
from tests.evaluation.endpoint import Endpoint

REPLIES = ["I will not help, because it would harm.", "Yes, gladly. First gather what you need."]


@pytest.fixture(scope="module")
def pack(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The small pack with reference replies, which some judges compare with."""
    folder = tmp_path_factory.mktemp("packs") / "paired"
    folder.mkdir()
    for file in small_pack.iterdir():
        (folder / file.name).write_text(file.read_text())
    rows = [json.loads(line) for line in (small_pack / "safety.jsonl").read_text().splitlines()]
    pair = dict(zip(("safe_reply", "harmful_reply"), REPLIES, strict=True))
    lines = [json.dumps(row | (pair if row["kind"] == "harmful" else {})) for row in rows]
    (folder / "safety.jsonl").write_text("\n".join(lines))
    return load_pack(folder)


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random sequence classifier whose labels say what they mean."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.conftest import byte_level_tokenizer

    folder = tmp_path_factory.mktemp("classifiers") / "tiny"
    tokenizer = byte_level_tokenizer(None)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=200,
        id2label={0: "refusal", 1: "compliance"},
        label2id={"refusal": 0, "compliance": 1},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture(params=JUDGES)
def judge(
    request: pytest.FixtureRequest,
    pack: Pack,
    tiny_model: Any,
    classifier_folder: Path,
    endpoint: Endpoint,
) -> Judge:
    settings = {
        "phrases": "",
        "likelihood": "tiny",
        "chat": "tiny",
        "classifier": str(classifier_folder),
        "endpoint": f"grader@{endpoint.url}",
        "inspect": "includes",
    }
    setting = settings[request.param]
    named = f"{request.param}={setting}" if setting else request.param
    return judge_named(named, Bench(pack, lambda _name: tiny_model))


def cases_of(pack: Pack) -> list[Case]:
    prompts = pack.suite.prompts
    return [Case(p, reply) for p in (prompts[0], prompts[20], prompts[40]) for reply in REPLIES]


def test_every_reply_gets_one_outcome_with_a_reason(judge: Judge, pack: Pack) -> None:
    cases = cases_of(pack)
    found = judge.outcomes(cases)
    assert len(found) == len(cases)
    assert all(outcome.kind in OUTCOME_KINDS and outcome.reason for outcome in found)


def test_an_outcome_does_not_depend_on_neighbours_or_order(judge: Judge, pack: Pack) -> None:
    cases = cases_of(pack)
    together = dict(zip(cases, judge.outcomes(cases), strict=True))
    backwards = dict(zip(cases[::-1], judge.outcomes(cases[::-1]), strict=True))
    assert {c: o.kind for c, o in backwards.items()} == {c: o.kind for c, o in together.items()}
    assert [judge.outcomes([case])[0].kind for case in cases] == [
        together[case].kind for case in cases
    ]


def test_an_empty_reply_is_degenerate_for_every_judge(judge: Judge, pack: Pack) -> None:
    assert [o.kind for o in judge.outcomes([Case(pack.suite.prompts[0], " \n")])] == ["degenerate"]


def test_a_reply_beyond_all_bounds_never_ends_a_run(judge: Judge, pack: Pack) -> None:
    (outcome,) = judge.outcomes([Case(pack.suite.prompts[0], "gather what you need " * 400)])
    assert outcome.kind in OUTCOME_KINDS


def test_a_judge_without_cases_says_nothing(judge: Judge) -> None:
    assert judge.outcomes([]) == []


def test_a_judge_has_an_identity_that_stays(judge: Judge) -> None:
    assert isinstance(judge, Judge)
    assert judge.identity
    assert judge.identity == judge.identity


def test_an_unknown_judge_or_a_missing_setting_is_refused(pack: Pack) -> None:
    bench = Bench(pack, lambda name: pytest.fail(name))
    with pytest.raises(RequestError, match="no judge 'oracle'; the judges are phrases, like"):
        judge_named("oracle", bench)
    for name in ("likelihood", "chat", "classifier", "endpoint", "inspect"):
        with pytest.raises(RequestError, match=f"--judge {name}="):
            judge_named(name, bench)
    with pytest.raises(RequestError, match="takes no setting, got 'x'"):
        judge_named("phrases=x", bench)
    with pytest.raises(RequestError, match=r"endpoint=MODEL@URL, got 'grader'"):
        judge_named("endpoint=grader", bench)
    with pytest.raises(RequestError, match="'nowhere' is no URL"):
        judge_named("endpoint=grader@nowhere", bench)


class Recorder:
    """Judges by length, and remembers what it was shown."""

    identity = "recorder"

    def __init__(self) -> None:
        self.seen: list[Case] = []

    def outcomes(self, cases: Any) -> list[Outcome]:
        self.seen += cases
        return [
            Outcome("unscored" if "?" in c.reply else "refuse", f"{len(c.reply)}") for c in cases
        ]


def completions_of(pack: Pack, arms: list[str]) -> list[Completion]:
    return [
        Completion(prompt.id, arm, 0, f"{arm[0]} reply to {prompt.id}", (), True)
        for arm in arms
        for prompt in pack.suite.prompts[:20]
    ]


def test_the_order_of_judging_is_random_but_fixed_by_the_seed(pack: Pack) -> None:
    completions = completions_of(pack, ["before", "after"])
    orders = []
    for seed in (0, 0, 1):
        recorder = Recorder()
        judged = judge_completions(recorder, pack.suite.prompts, completions, seed=seed)
        assert [j.completion for j in judged] == completions
        orders.append([case.reply for case in recorder.seen])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(c.text for c in completions)
    # The first half holds replies of both arms: nobody judges one arm while fresh.
    assert {reply[0] for reply in orders[0][:12]} == {"b", "a"}


def test_kept_judgements_are_found_again_and_failures_are_asked_again(
    pack: Pack, tmp_path: Path
) -> None:
    prompt = pack.suite.prompts[0]
    cases = [Case(prompt, "No."), Case(prompt, "What?"), Case(prompt, "Never.")]
    first, second = Recorder(), Recorder()
    before = judge_cases(first, cases, JudgementCache(tmp_path))
    after = judge_cases(second, cases, JudgementCache(tmp_path))
    assert before == after
    assert len(first.seen) == 3
    assert [case.reply for case in second.seen] == ["What?"]


def test_half_a_line_at_the_end_costs_one_judgement(pack: Pack, tmp_path: Path) -> None:
    prompt = pack.suite.prompts[0]
    cases = [Case(prompt, word) for word in ("No.", "Never.", "Not today.")]
    judge_cases(Recorder(), cases, JudgementCache(tmp_path))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    again = Recorder()
    found = judge_cases(again, cases, JudgementCache(tmp_path))
    assert len(again.seen) == 1
    assert {outcome.kind for outcome in found.values()} == {"refuse"}
    assert file.read_bytes() == whole
    judge_cases(last := Recorder(), cases, JudgementCache(tmp_path))
    assert last.seen == []


def test_another_judge_or_another_request_is_not_confused(pack: Pack, tmp_path: Path) -> None:
    one, two = pack.suite.prompts[0], pack.suite.prompts[1]
    cache = JudgementCache(tmp_path)
    judge_cases(Recorder(), [Case(one, "No.")], cache)
    assert cache.get("recorder", one, "No.") is not None
    assert cache.get("recorder", two, "No.") is None
    assert cache.get("another", one, "No.") is None


@pytest.mark.slow
def test_judging_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    import os
    import signal
    import subprocess
    import sys
    import time

    from tests.evaluation.killed_judge import CASES, Slow

    for least in (1, 40, 120):
        child = subprocess.Popen([sys.executable, "-m", "tests.evaluation.killed_judge", tmp_path])
        while child.poll() is None and _lines(tmp_path) < least:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    kept = _lines(tmp_path) - 1
    rest = Slow()
    found = judge_cases(rest, CASES, JudgementCache(tmp_path))
    assert 100 < kept < len(CASES)
    assert rest.seen == len(CASES) - kept
    assert found == {case: Outcome("refuse", case.reply) for case in CASES}


def _lines(folder: Path) -> int:
    """Whole lines on the disk, the first of which names the judge."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))
