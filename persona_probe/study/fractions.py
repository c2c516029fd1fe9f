"""Where single conditions stand between the model before finetuning (0) and after it (1)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.statistics import Estimate, MeansFunction, ratio_interval, ratio_of_functions
from persona_probe.study.band import Band
from persona_probe.study.record import Record

BANDS = ("random", "covariance", "shuffled", "kl_matched")  # every control kind of L2


def band_effects(record: Record, kind: str) -> dict[str, float]:
    """ER of each condition of a kind, on the prompts that it met.

    A direction none of whose replies could be scored has no effect to speak of and is left out;
    its replies are counted as unscored in the table of arms.
    """
    found = _point_effects(record, kind, np.ones(len(record.prompts), dtype=bool))
    return {name: effect.value for name, effect in found.items()}


def band(record: Record, kind: str, removed: bool = False) -> Band | None:
    """The furthest that any condition of a kind gets; `None` when there is none.

    Args:
        record: everything measured.
        kind: of condition.
        removed: what the conditions take away from the finetuning effect, not what they bring.
    """
    conditions = record.named(kind)
    if not conditions:
        return None
    effects = band_effects(record, kind).values()
    harmful = record.tier("T1", "T2")
    asked = [record.met(condition.name) & harmful for condition in conditions]
    scored = [
        met & np.isfinite(record.behaviour([condition.name])[:, 0])
        for condition, met in zip(conditions, asked, strict=True)
    ]
    return Band(
        max((1 - effect if removed else effect for effect in effects), default=np.nan),
        read=int(np.sum(scored)),
        asked=int(np.sum(asked)),
    )


def band_effects_in(record: Record, kind: str, category: str) -> dict[str, Estimate]:
    """The same within one category of harm; without intervals, since the draws are the spread."""
    inside = [p.kind == "harmful" and p.category == category for p in record.prompts]
    return _point_effects(record, kind, np.array(inside))


def _point_effects(
    record: Record, kind: str, inside: Bool[np.ndarray, " prompt"]
) -> dict[str, Estimate]:
    found = {}
    finetuned, before = record.finetuned()[:, 0], record.before()[:, 0]
    for condition in record.named(kind):
        safe = record.behaviour([condition.name])[:, 0]
        scored = inside & np.isfinite(safe) & np.isfinite(finetuned) & np.isfinite(before)
        n = int(scored.sum())
        if not n:
            continue
        whole = finetuned[scored].mean() - before[scored].mean()
        if whole:
            effect = (safe[scored].mean() - before[scored].mean()) / whole
            found[condition.name] = Estimate(float(effect), np.nan, np.nan, n, 0)
    return found


def fast_share(record: Record, name: str) -> Estimate:
    """Share of the finetune's gain in refusal probability that a condition reaches."""
    finetuned = np.mean([record.refusal[c.name] for c in record.finetunes], axis=0)
    before = record.refusal[record.one("helpful_only")]
    return ratio_interval(
        record.refusal[name] - before,
        finetuned - before,
        record.fast_families,
        **record.options,
    )


def reproduced_on_band(record: Record, name: str) -> Estimate:
    """ER of a condition on the harmful prompts that it met, all of them or a part."""
    safe = _safe(record, name), record.finetuned()[:, 0], record.before()[:, 0]
    return _share_of_effect(record, safe, lambda m: m[:, 0] - m[:, 2])


def removed_from(record: Record, name: str, finetune: str) -> Estimate:
    """NEC of one ablation of one finetune, on the harmful prompts that it met."""
    safe = _safe(record, name), _safe(record, finetune), record.before()[:, 0]
    return _share_of_effect(record, safe, lambda m: m[:, 1] - m[:, 0])


def _share_of_effect(
    record: Record, safe: Sequence[Float[np.ndarray, " prompt"]], part: MeansFunction
) -> Estimate:
    """A part of Y(F) - Y(H) over the whole, from safe replies of a condition, of F and of H.

    Only prompts that all three answered count.
    """
    columns = np.column_stack(safe)
    columns[np.isnan(columns).any(axis=1)] = np.nan
    return ratio_of_functions(
        columns,
        record.families,
        part,
        lambda m: m[:, 1] - m[:, 2],
        shares=True,
        **record.options,
    )


def _safe(record: Record, name: str) -> Float[np.ndarray, " prompt"]:
    return record.behaviour([name])[:, 0]
