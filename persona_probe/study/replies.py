"""Replies of many conditions to the same prompts: generated together, judged, kept row by row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from persona_probe.activations.contrast import request
from persona_probe.evaluation.guards import Guards, SideEffects, side_effects
from persona_probe.evaluation.judge import Judgement, judge_completions
from persona_probe.evaluation.multiple_choice import Knowledge, answered
from persona_probe.evaluation.outcome import Outcome
from persona_probe.models.chat import Conversation
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.generation import Completion, generate
from persona_probe.study.arms import Condition
from persona_probe.study.divergence import divergences_of, perplexity_ratios
from persona_probe.study.lab import Lab

Judged = dict[str, list[Judgement]]  # condition -> judgements in the order of the prompts


def replies(
    lab: Lab,
    conditions: Sequence[Condition],
    prompts: Sequence[SafetyPrompt],
    temperature: float = 0.0,
    description: str = "Replying",
    ask: Callable[[SafetyPrompt, str], Conversation] = request,
) -> Judged:
    """Generate and judge one reply per condition and prompt.

    Conditions that share a system line share their batches; sampled replies of all conditions to
    one prompt share their randomness. The judge sees the prompt's own words, however `ask` puts
    them to the model under its system line.
    """
    judged: Judged = {}
    for model, system, several in lab.together(conditions):
        completions = generate(
            model,
            [ask(prompt, system) for prompt in prompts],
            [condition.arm for condition in several],
            max_new_tokens=lab.pack.max_new_tokens,
            temperature=temperature,
            seed=lab.study.seed,
            description=description,
        )
        for judgement in judge_completions(
            lab.judge, prompts, completions, lab.kept, lab.study.seed
        ):
            judged.setdefault(judgement.completion.arm, []).append(judgement)
    return judged


def answers(
    lab: Lab, conditions: Sequence[Condition], questions: Sequence[ChoiceQuestion]
) -> dict[str, Bool[np.ndarray, " question"]]:
    """Which multiple-choice questions each condition gets right."""
    right: dict[str, Bool[np.ndarray, " question"]] = {}
    for model, system, several in lab.together(conditions):
        right |= answered(model, questions, [c.arm for c in several], system)
    return right


def guards(
    lab: Lab,
    conditions: Sequence[Condition],
    judged: Judged,
    before: Condition,
    finetuned: Condition,
    known: Mapping[str, Knowledge] | None = None,
) -> dict[str, Guards]:
    """The guards of steered conditions, measured on their replies and on the KL channel.

    Args:
        lab: the study.
        conditions: whose cost is asked for.
        judged: replies of these, of `before` and of `finetuned`, to the same prompts.
        before: H, whose own replies to permitted requests the divergence is measured on.
        finetuned: F, whose cost is the yardstick.
        known: condition → multiple-choice accuracy, if questions were asked.
    """
    own = judged[before.name]
    found = divergences_of(lab, [*conditions, finetuned], own, before)
    ratios = perplexity_ratios(lab, [*conditions, finetuned], own, before)
    known = known or {}

    def cost(condition: Condition) -> SideEffects:
        name = condition.name
        return side_effects(judged[name], own, found[name], ratios.get(name), known.get(name))

    itself = cost(finetuned)
    return {c.name: Guards(cost(c), itself, lab.study.guards) for c in conditions}


def to_rows(
    conditions: Iterable[Condition], judged: Judged, temperature: float, judge: str
) -> list[dict[str, Any]]:
    """One flat row per reply, with the request, for the log and for the report."""
    return [
        condition.about()
        | {
            "prompt": judgement.prompt.id,
            "kind": judgement.prompt.kind,
            "category": judgement.prompt.category,
            "tier": judgement.prompt.tier,
            "family": judgement.prompt.family,
            "request": judgement.prompt.text,
            "temperature": temperature,
            "sample": judgement.completion.sample,
            "text": judgement.completion.text,
            "token_ids": list(judgement.completion.token_ids),
            "finished": judgement.completion.finished,
            "outcome": judgement.outcome.kind,
            "reason": judgement.outcome.reason,
            "judge": judge,
            "outcome_persona": judgement.outcome.persona,
            "outcome_category": judgement.outcome.category,
        }
        for condition in conditions
        for judgement in judged[condition.name]
    ]


def from_rows(rows: Iterable[dict[str, Any]], prompts: dict[str, SafetyPrompt]) -> Judged:
    """The inverse of `to_rows`, for stages that begin from the log."""
    judged: Judged = {}
    for row in rows:
        completion = Completion(
            row["prompt"],
            row["arm"],
            row["sample"],
            row["text"],
            tuple(row["token_ids"]),
            row["finished"],
        )
        outcome = Outcome(
            row["outcome"], row["reason"], row["outcome_persona"], row["outcome_category"]
        )
        judged.setdefault(row["arm"], []).append(
            Judgement(prompts[row["prompt"]], completion, outcome)
        )
    return judged
