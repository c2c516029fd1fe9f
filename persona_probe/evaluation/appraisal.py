"""How a model and its finetunes behave on held-out prompts, and which character they show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persona_probe.activations.contrast import request
from persona_probe.errors import RequestError
from persona_probe.evaluation.instrument import Instrument, check_instrument
from persona_probe.evaluation.judge import Judge, Judgement
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.evaluation.listing import Listing, listings
from persona_probe.evaluation.panel import Panel, judge_by_all
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.evaluation.positive_control import PositiveControl, positive_control
from persona_probe.evaluation.profile import profiles
from persona_probe.evaluation.profile_match import dimension_scores
from persona_probe.evaluation.rates import safe_rate, safety_rates
from persona_probe.evaluation.rating import FORMS
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread, spread_items
from persona_probe.statistics import Estimate
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

RESAMPLES = 2000


@dataclass(frozen=True)
class Appraisal:
    """How a model and its finetunes behaved.

    Attributes:
        rows: one per adapter: its name, how many replies the first judge left unscored, and
            `estimates` by the name of the measure.
        panel: every reply with every judge's outcome.
        instruments: adapter's arm → what its answers to the diagnostic owe to their form.
        control: whether constitutions in the system line are recognised, if that was asked for;
            of the first adapter.
        listings: adapter's arm → its scenarios read a second way; empty where there are none.
    """

    rows: list[dict[str, Any]]
    panel: Panel
    instruments: dict[str, Instrument]
    control: PositiveControl | None = None
    listings: dict[str, Listing] = field(default_factory=dict)


def appraise(
    model: ResidualModel,
    pack: Pack,
    adapters: Sequence[str | None],
    categories: Collection[str] | None = None,
    n: int = 200,
    seed: int = 0,
    judges: Mapping[str, Judge] | None = None,
    cache: JudgementCache | None = None,
    n_forms: int = FORMS,
    with_control: bool = False,
) -> Appraisal:
    """Judge replies and measure the profile of bare weights and adapters, in common batches.

    Args:
        model: left as it was found.
        pack: whose evaluate part is asked.
        adapters: what to appraise; `None` is the bare weights.
        categories: harm categories; all if not given. Borderline and benign prompts follow them.
        n: most prompts of each kind, and most diagnostic items, though two per dimension at least.
        seed: of the split, of the order of judging and of the bootstrap.
        judges: by name; the first one's outcomes enter the rates, the others are compared with
            it. The pack's phrase judge if not given.
        cache: where judgements are kept.
        n_forms: forms in which each statement of the diagnostic is put.
        with_control: measure the profile also under each persona's constitution.

    Raises:
        RequestError: no prompt is left.
    """
    prompts = _prompts(pack, categories, n, seed)
    arms = [Arm(adapter or "bare", adapter=adapter) for adapter in adapters]
    asked = [request(prompt, pack.neutral_system) for prompt in prompts]
    completions = generate(model, asked, arms, pack.max_new_tokens, seed=seed)
    panel = judge_by_all(
        judges or {"phrases": PhraseJudge(pack.judge_rules)}, prompts, completions, cache, seed
    )
    held_out = pack.diagnostic.of(pack.split(seed).evaluate)
    # A profile has all dimensions, each with both keys, however few prompts are asked for.
    diagnostic = spread_items(held_out, max(n, 2 * len(held_out.dimensions)))
    measured = profiles(model, diagnostic, arms, pack.neutral_system, n_forms)
    rows = []
    for arm, profile in zip(arms, measured, strict=True):
        own = [j for j in panel.first if j.completion.arm == arm.name]
        estimates = _behaviour(own, seed)
        estimates |= {
            f"profile {dimension}": score
            for dimension, score in dimension_scores(profile, RESAMPLES, seed).items()
        }
        unscored = sum(j.outcome.kind == "unscored" for j in own)
        rows.append({"adapter": arm.adapter, "unscored": unscored, "estimates": estimates})
    instruments = {p.arm: check_instrument(p, RESAMPLES, seed) for p in measured}
    control = None
    if with_control:
        control = positive_control(
            model, diagnostic, pack.personas, arms[0], pack.neutral_system, n_forms, seed
        )
    listed = listings(model, measured, arms, pack.neutral_system, RESAMPLES, seed)
    return Appraisal(rows, panel, instruments, control, listed)


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
