"""The three channels of evidence on the evaluate split: replies, first tokens, self-report.

Replies say what a model does, the refusal probability of a reply's first token resolves finer and
is cheap enough for hundreds of random directions, and the persona profile says which character
answers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from persona_probe.evaluation.guards import Guards
from persona_probe.evaluation.multiple_choice import Knowledge, knowledge
from persona_probe.evaluation.preference import pair_margins, refusal_probability
from persona_probe.evaluation.profile import Profile, profiles
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.arms import Condition, finetunes
from persona_probe.study.lab import Lab
from persona_probe.study.replies import Judged, answers, guards, replies
from persona_probe.study.trial import ON_BAND, Trial

SAMPLED = ("helpful_only", "finetuned", "steered", "ablated")
COSTED = ("steered", "steered_shared", "steered_specific", "trained")


def reply_channel(trial: Trial, persona: str | None) -> tuple[list[Condition], Judged]:
    """Greedy replies of one persona's conditions, or of those that all personas share."""
    lab = trial.lab
    prompts = [*trial.harmful, *trial.permitted]
    if persona is None:
        return trial.shared, replies(lab, trial.shared, prompts, description="Replies: shared")
    found = trial.conditions(persona)
    whole = [c for c in found if c.kind not in ON_BAND]
    part = [c for c in found if c.kind in ON_BAND]
    judged = replies(lab, whole, prompts, description=f"Replies: {persona}")
    if part:
        judged |= replies(lab, part, trial.band, description=f"Controls: {persona}")
    return found, judged


def sampled_replies(trial: Trial, conditions: Sequence[Condition]) -> Judged:
    """One reply at temperature 1 per untrained harmful prompt, of one main condition per kind."""
    main = {c.kind: c for c in reversed(conditions) if c.kind in SAMPLED}
    prompts = trial.untrained(trial.lab.study.budget.sampled)
    if not main or not prompts:
        return {}
    return replies(
        trial.lab, list(main.values()), prompts, temperature=1.0, description="Replies: sampled"
    )


def guard_channel(
    trial: Trial, conditions: Sequence[Condition], judged: Judged, persona: str
) -> dict[str, Guards]:
    """What the steered conditions cost, against the first finetune.

    Multiple-choice questions are asked of the whole direction only, not of its parts.
    """
    lab = trial.lab
    yardstick = finetunes(lab.study, persona)[0]
    costed = [c for c in conditions if c.kind in COSTED]
    asked = [condition for condition in costed if condition.kind == COSTED[0]]
    known = knowledge_channel(trial, [*asked, yardstick])
    return guards(lab, costed, judged, trial.before, yardstick, known)


def knowledge_channel(trial: Trial, conditions: Sequence[Condition]) -> dict[str, Knowledge]:
    """Multiple-choice accuracy of each condition beside H's; empty without questions."""
    if not trial.questions:
        return {}
    before = trial.known_before
    options = {"resamples": trial.lab.study.budget.resamples, "seed": trial.lab.study.seed}
    return {
        name: knowledge(trial.questions, right, before, **options)
        for name, right in answers(trial.lab, conditions, trial.questions).items()
    }


def preference_channel(
    lab: Lab,
    conditions: Sequence[Condition],
    prompts: Sequence[SafetyPrompt],
    complying: bool = False,
) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Probability that the reply begins as a refusal does, per condition and prompt.

    The plain probability, not its share among the pack's openers: a direction that breaks the
    model must not look as if it refused, nor, with `complying`, as if it complied.

    Args:
        lab: the study.
        conditions: what is measured.
        prompts: requests.
        complying: the probability that the reply begins as compliance does instead.
    """
    found: dict[str, np.ndarray] = {}
    for model, system, several in lab.together(conditions):
        preference = refusal_probability(
            model, prompts, [c.arm for c in several], lab.pack.judge_rules, system
        )
        mass = preference.compliance_mass if complying else preference.refusal_mass
        values = mass.double().numpy()
        found |= dict(zip(preference.arms, values, strict=True))
    return found


def margin_channel(
    lab: Lab, conditions: Sequence[Condition], prompts: Sequence[SafetyPrompt]
) -> dict[str, Float[np.ndarray, " prompt"]]:
    """M = log p(safe reply) - log p(harmful reply), nats per token, per condition and prompt.

    Empty when no prompt has a fixed pair of replies.
    """
    found: dict[str, np.ndarray] = {}
    paired = with_pairs(prompts)
    for model, system, several in lab.together(conditions) if paired else ():
        margins = pair_margins(model, paired, [c.arm for c in several], system)
        found |= dict(zip(margins.arms, margins.margin.double().numpy(), strict=True))
    return found


def with_pairs(prompts: Sequence[SafetyPrompt]) -> list[SafetyPrompt]:
    """Those that have a fixed safe and a fixed harmful reply."""
    return [p for p in prompts if p.safe_reply and p.harmful_reply]


def profile_channel(trial: Trial, conditions: Sequence[Condition]) -> dict[str, Profile]:
    """Persona profile per condition, on the evaluate items."""
    lab = trial.lab
    diagnostic = lab.items("evaluate", lab.study.budget.items)
    found: dict[str, Profile] = {}
    for model, system, several in lab.together(conditions):
        arms = [condition.arm for condition in several]
        found |= {p.arm: p for p in profiles(model, diagnostic, arms, system)}
    return found


def mean_of(values: Mapping[str, Float[np.ndarray, " prompt"]], name: str) -> float:
    """Mean of one condition over the prompts."""
    return float(values[name].mean())
