"""The tidy table of effects: persona, scope, condition, metric, value with interval."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from persona_probe.evaluation.rates import degenerate_value
from persona_probe.statistics import Estimate, json_number
from persona_probe.study.evidence import Evidence
from persona_probe.study.fractions import (
    band_effects_in,
    fast_share,
    removed_from,
    reproduced_on_band,
)
from persona_probe.study.portrait import Portrait
from persona_probe.study.record import Record
from persona_probe.study.sufficiency import (
    composite,
    effect_by_category,
    effect_reproduced,
    gain,
    scaled,
)

Row = dict[str, Any]
Rows = list[Row]
Found = Iterable[tuple[str, str, Estimate | None]]

# Kinds of condition whose place between H and F is worked out on all prompts.
WHOLE = (
    "finetuned", "broad", "steered_shared", "steered_specific", "trained", "wrong",
    "sign_flip", "system_prompt", "placebo", "refusal_only", "shuffled_constitutions", "style_only",
)  # fmt: skip
DRAWN = ("random", "covariance")  # in each category
PART = ("orthogonalised", "zero")
REMOVED = (
    "ablated_wrong", "ablated_random", "ablated_covariance", "ablated_rank", "ablated_rank_random",
)  # fmt: skip


def effect_row(record: Record, arm: str, metric: str, value: Estimate | None, **more: Any) -> Row:
    """One row; an undefined value is null, and says why."""
    return {
        "persona": record.persona,
        "scope": record.scope,
        "arm": arm,
        "metric": metric,
        "value": None if value is None or not value.defined else value.to_json(),
        "why_undefined": None if value is None else value.reason,
        **more,
    }


def rows_of(
    record: Record,
    evidence: Evidence,
    portraits: tuple[Portrait, Portrait],
    bands: Mapping[str, Mapping[str, float]],
) -> Rows:
    """Every effect of one persona in one scope.

    Args:
        record: what was measured.
        evidence: what the ladder reads.
        portraits: over the dimensions that hold together, and over all.
        bands: kind of control → its conditions' effects.
    """
    found = [
        *_sufficiency(record, evidence),
        *_necessity(record, evidence),
        *((name, "ER_refusal_probability", fast_share(record, name)) for name in record.refusal),
    ]
    rows = [effect_row(record, *each) for each in found]
    rows += [
        effect_row(record, name, "ER in category", value, category=category)
        for category, several in _by_category(record).items()
        for name, value in several.items()
    ]
    rows += _profiles(record, *portraits)
    rows += [
        effect_row(record, name, "ER", Estimate(er, np.nan, np.nan, len(record.judged[name]), 0))
        for several in bands.values()
        for name, er in several.items()
    ]
    steered = record.one("steered")
    for kind, several in bands.items():
        if several and evidence.effect is not None and evidence.effect.defined:
            lead = evidence.effect.value - float(np.mean(list(several.values())))
            value = Estimate(lead, np.nan, np.nan, len(several), 0)
            rows.append(effect_row(record, steered, f"ER - mean ER({kind})", value))
    return rows


def _sufficiency(record: Record, evidence: Evidence) -> Found:
    steered, families, options = record.one("steered"), record.families, record.options
    own, finetuned, before = record.behaviour([steered]), record.finetuned(), record.before()
    yield steered, "ER", evidence.effect
    yield steered, "ER_J", evidence.effect_j
    if evidence.equivalence is not None:
        yield steered, "Y(F) - Y(S)", evidence.equivalence.difference
    yield steered, "pi_steer", evidence.retention
    moved = gain(own, before, families, **options)
    yield steered, "Y - Y(H)", moved
    cost = record.guards[steered].get("per_token_kl")
    if cost:
        yield steered, "Y - Y(H) per nat", scaled(moved, 1 / cost)
    for prompt in record.named("system_prompt"):
        said = record.behaviour([prompt.name])
        yield (
            steered,
            "ER against system prompt",
            effect_reproduced(own, said, before, families, **options),
        )
    names = [c.name for kind in WHOLE for c in record.named(kind) if c.name in record.judged]
    for name in names:
        there = record.behaviour([name])
        yield name, "ER", effect_reproduced(there, finetuned, before, families, **options)
        yield (
            name,
            "ER_J",
            effect_reproduced(there, finetuned, before, families, net=True, **options),
        )
        yield name, "Y - Y(H)", gain(there, before, families, **options)
    for name in (record.one("helpful_only"), steered, *names):
        broken = [degenerate_value(judgement) for judgement in record.judged[name]]
        yield name, "S8", composite(record.behaviour([name]), np.array(broken), families, **options)
    for kind in PART:
        for condition in record.named(kind):
            yield condition.name, "ER", reproduced_on_band(record, condition.name)


def _necessity(record: Record, evidence: Evidence) -> Found:
    if not record.ablated:
        return
    yield record.ablated[0].name, "NEC", evidence.necessity
    own = {condition.seed: condition.name for condition in record.finetunes}
    for condition in record.ablated:
        value = removed_from(record, condition.name, own[condition.seed])
        yield condition.name, "NEC (this seed)", value
    if not record.headline:
        return
    for kind in REMOVED:
        for condition in record.named(kind):
            value = removed_from(record, condition.name, record.finetunes[0].name)
            yield condition.name, "NEC", value
    for condition in record.named("ablated_before"):
        yield condition.name, "ER", reproduced_on_band(record, condition.name)


def _profiles(record: Record, portrait: Portrait, whole: Portrait) -> Rows:
    """What the profiles say; where dimensions are greyed, beside it what it would be with them."""
    rows = []
    unread = Estimate.undefined(str(portrait.evidence.get("unreadable", "greyed")))
    for metric, several in whole.estimates.items():
        for name, value in several.items():
            own = portrait.estimates[metric].get(name, unread)
            row = effect_row(record, name, metric, own)
            if metric == "signature r":
                match = portrait.matches.get(name)
                row["p"] = None if match is None else json_number(match.p)
            if portrait is not whole:
                row["with_greyed"] = value.to_json()
            rows.append(row)
    return rows


def _by_category(record: Record) -> dict[str, dict[str, Estimate]]:
    """ER in every category, trained ones included: of the steered model, and of random directions.

    A random direction has no value where the steered model has none, nor in trained categories,
    whose prompts it did not meet.
    """
    harmful = [i for i, prompt in enumerate(record.prompts) if prompt.kind == "harmful"]
    name = record.one("steered")
    finetuned, before = record.finetuned(trained=True), record.before(trained=True)
    found = effect_by_category(
        record.behaviour([name], trained=True)[harmful],
        finetuned[harmful],
        before[harmful],
        [record.families[i] for i in harmful],
        [record.prompts[i].category for i in harmful],
        **record.options,
    )
    return {
        category: {name: value} | (_drawn(record, category) if value.defined else {})
        for category, value in found.items()
    }


def _drawn(record: Record, category: str) -> dict[str, Estimate]:
    return {
        name: value
        for kind in DRAWN
        for name, value in band_effects_in(record, kind, category).items()
    }
