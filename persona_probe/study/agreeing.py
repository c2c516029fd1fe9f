"""A second judge on the same replies: how far two readings agree."""

from typing import Any

from persona_probe.evaluation.agreement import agreement
from persona_probe.evaluation.judge import Judgement, judge_completions
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.files import read_jsonl, write_json, write_jsonl
from persona_probe.study.lab import KEPT, Lab
from persona_probe.study.replies import from_rows


def agree_stage(lab: Lab) -> None:
    """Kappa of the plan's two judges, over all greedy replies and arm by arm."""
    judge = lab.second_judge
    if judge is None:
        write_json(lab.folder / "agreement.json", {"overall": None, "arms": [], "judges": 1})
        return
    prompts = {prompt.id: prompt for prompt in lab.pack.suite.prompts}
    rows = [r for r in read_jsonl(lab.folder / "replies.jsonl") if r["temperature"] == 0]
    first = from_rows(rows, prompts)
    every = [judgement for several in first.values() for judgement in several]
    second = judge_completions(
        judge,
        list(prompts.values()),
        [judgement.completion for judgement in every],
        JudgementCache(lab.folder / KEPT),
        lab.study.seed,
    )
    by_arm: dict[str, list[Judgement]] = {}
    for judgement in second:
        by_arm.setdefault(judgement.completion.arm, []).append(judgement)
    options: dict[str, Any] = {"resamples": lab.study.budget.resamples, "seed": lab.study.seed}
    write_jsonl(
        lab.folder / "second_judge.jsonl",
        ({"judge": judge.identity} | judgement.to_json() for judgement in second),
    )
    write_json(
        lab.folder / "agreement.json",
        {
            "overall": agreement(every, second, **options).to_json(),
            "arms": [
                {"arm": name} | agreement(several, by_arm[name], **options).to_json()
                for name, several in first.items()
            ],
            "judges": 2,
        },
    )
