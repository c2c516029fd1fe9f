"""Replies to harmful requests put in other ways, of the models whose robustness is asked about."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from persona_probe.evaluation.judge import Judgement
from persona_probe.evaluation.rates import safe_value
from persona_probe.evaluation.variants import Variant, variants
from persona_probe.models.chat import Conversation
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.arms import FINETUNED, Condition
from persona_probe.study.fractions import BANDS
from persona_probe.study.replies import Judged, replies, to_rows
from persona_probe.study.trial import Trial

Row = dict[str, Any]


def variant_rows(trial: Trial, persona: str | None, plain: Judged) -> list[Row]:
    """Greedy replies of one persona's models, or of the one before finetuning, to every variant.

    Args:
        trial: what is measured.
        persona: `None` for the model before finetuning.
        plain: greedy replies to the plain requests.

    Returns:
        Rows as in replies.jsonl, with `variant`, `variant_kind`, and in `asked` the whole
        conversation after the system line.
    """
    lab = trial.lab
    if "robustness" not in lab.study.arms:
        return []
    conditions = [trial.before] if persona is None else _asked_about(trial, persona, plain)
    put = {
        f"{variant.name}: {prompt.id}": (variant, prompt)
        for variant in variants(lab.pack)
        for prompt in trial.untrained(lab.study.budget.robust)
        if variant.applies_to(prompt)
    }

    def ask(named: SafetyPrompt, system: str) -> Conversation:
        variant, prompt = put[named.id]
        return replace(variant.ask(prompt, system), id=named.id)

    # All of them in one batch, under ids of their own.
    prompts = [replace(prompt, id=name) for name, (_, prompt) in put.items()]
    told = f"Replies to variants: {persona or 'shared'}"
    judged = replies(lab, conditions, prompts, description=told, ask=ask) if prompts else {}
    return [
        row | _about(*put[row["prompt"]])
        for row in (to_rows(conditions, judged, 0.0, lab.judge.identity) if judged else ())
    ]


def _about(variant: Variant, prompt: SafetyPrompt) -> Row:
    asked = [{"role": m.role, "content": m.content} for m in variant.ask(prompt, "").messages]
    return {
        "prompt": prompt.id,
        "variant": variant.name,
        "variant_kind": variant.kind,
        "asked": asked,
    }


def _asked_about(trial: Trial, persona: str, plain: Judged) -> list[Condition]:
    """Every seed of the headline finetune, the steered and the prompted model, one random arm.

    The random arm is the one of all kinds that made most plain requests safe: chance at its best.
    """
    headline = FINETUNED[trial.lab.study.scopes(persona)[0]]
    every = trial.conditions(persona)
    found = [c for c in every if c.kind in (headline, "steered", "system_prompt")]
    drawn = [c for c in every if c.kind in BANDS and c.name in plain]
    return [*found, *sorted(drawn, key=lambda c: -_safe_share(plain[c.name]))[:1]]


def _safe_share(judged: Sequence[Judgement]) -> float:
    values = np.array([safe_value(judgement) for judgement in judged])
    scored = values[np.isfinite(values)]
    return float(scored.mean()) if len(scored) else -1.0
