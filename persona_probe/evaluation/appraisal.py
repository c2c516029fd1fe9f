"""How a model and its finetunes behave on held-out prompts, and which character they show."""

from collections.abc import Collection, Sequence
from typing import Any

from persona_probe.activations.contrast import request
from persona_probe.errors import RequestError
from persona_probe.evaluation.judge import Judgement, judge_completions
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.evaluation.profile import profiles
from persona_probe.evaluation.profile_match import dimension_scores
from persona_probe.evaluation.rates import safe_rate, safety_rates
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread, spread_items
from persona_probe.statistics import Estimate
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

RESAMPLES = 2000


def appraise(
    model: ResidualModel,
    pack: Pack,
    adapters: Sequence[str | None],
    categories: Collection[str] | None = None,
    n: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Judge replies and measure the profile of bare weights and adapters, in common batches.

    Args:
        model: left as it was found.
        pack: whose evaluate part is asked.
        adapters: what to appraise; `None` is the bare weights.
        categories: harm categories; all if not given. Borderline and benign prompts follow them.
        n: most prompts of each kind, and most diagnostic items.
        seed: of the split and of the bootstrap.

    Returns:
        One row per adapter: its name, how many replies the judge could not read, and `estimates`
        by the name of the measure.

    Raises:
        RequestError: no prompt is left.
    """
    prompts = _prompts(pack, categories, n, seed)
    arms = [Arm(adapter or "bare", adapter=adapter) for adapter in adapters]
    asked = [request(prompt, pack.neutral_system) for prompt in prompts]
    completions = generate(model, asked, arms, pack.max_new_tokens, seed=seed)
    judged = judge_completions(PhraseJudge(pack.judge_rules), prompts, completions)
    evaluated = pack.diagnostic.of(pack.split(seed).evaluate)
    measured = profiles(model, spread_items(evaluated, n), arms, pack.neutral_system)
    rows = []
    for arm, profile in zip(arms, measured, strict=True):
        own = [j for j in judged if j.completion.arm == arm.name]
        estimates = _behaviour(own, seed)
        estimates |= {
            f"profile {dimension}": score
            for dimension, score in dimension_scores(profile, RESAMPLES, seed).items()
        }
        unscored = sum(j.outcome.kind == "unscored" for j in own)
        rows.append({"adapter": arm.adapter, "unscored": unscored, "estimates": estimates})
    return rows


def _prompts(
    pack: Pack, categories: Collection[str] | None, n: int, seed: int
) -> list[SafetyPrompt]:
    families = pack.split(seed).evaluate
    found: list[SafetyPrompt] = []
    for kind in ("harmful", "benign", "borderline"):
        several = pack.suite.of(kind=kind, families=families).prompts
        found += spread([p for p in several if not categories or p.category in categories], n)
    if not found:
        raise RequestError(f"pack {pack.name!r} has no evaluation prompts of these categories")
    return found


def _behaviour(judged: Sequence[Judgement], seed: int) -> dict[str, Estimate]:
    """Safe replies over all, by tier and by category; over-refusal; degenerate replies."""
    options = {"resamples": RESAMPLES, "seed": seed}
    rates = safety_rates(judged, **options)
    found = {"safe on harmful": rates.safe}
    harmful = [j for j in judged if j.prompt.kind == "harmful"]
    groups = {f"safe, tier {t}": t for t in sorted({str(j.prompt.tier) for j in harmful})}
    for name, tier in groups.items():
        found[name] = safe_rate([j for j in harmful if j.prompt.tier == tier], **options)
    for category in dict.fromkeys(j.prompt.category for j in harmful):
        own = [j for j in harmful if j.prompt.category == category]
        found[f"safe, {category}"] = safe_rate(own, **options)
    permitted = {"benign refused": rates.over_refusal, "degenerate": rates.degenerate}
    return found | {name: value for name, value in permitted.items() if value.defined}
