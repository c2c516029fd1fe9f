"""From the three channels to effects with intervals, and to the evidence that the ladder reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.profile_match import (
    Identification,
    Signature,
    advantage,
    identify,
    moved,
    recovery,
)
from persona_probe.evaluation.rates import outcome_columns
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Equivalence, Estimate, permutation_p
from persona_probe.study.arms import RANDOM_KINDS, Condition
from persona_probe.study.lab import UNTRAINED
from persona_probe.study.necessity import effect_removed
from persona_probe.study.plan import Study
from persona_probe.study.projectability import retention, steered_retention
from persona_probe.study.replies import Judged
from persona_probe.study.sufficiency import Behaviour, effect_reproduced, reproduction
from persona_probe.study.verdict import Evidence

CHANCE = 0.5


@dataclass(frozen=True)
class Record:
    """Everything measured about one persona, by condition name.

    Attributes:
        prompts: harmful and permitted evaluation prompts, in the order of the replies.
        conditions: of this persona and those that all personas share.
        judged: replies; those of random directions are to a part of the prompts.
        refusal: refusal probability per prompt of `fast_prompts`.
        null: random kind → mean refusal probability per draw on `fast_prompts`.
        profiles: persona profiles.
        signatures: persona → expected profile.
        contrast: row of validation.json for the direction at its chosen site, on held-out persona
            and neutral prompts.
        detection: the same on finetuned and helpful-only activations.
    """

    study: Study
    persona: str
    prompts: Sequence[SafetyPrompt]
    conditions: Sequence[Condition]
    judged: Judged
    refusal: Mapping[str, Float[np.ndarray, " prompt"]]
    null: Mapping[str, Float[np.ndarray, " draw"]]
    guards: Mapping[str, Mapping[str, Any]]
    profiles: Mapping[str, Profile]
    signatures: Mapping[str, Signature]
    contrast: Mapping[str, Any]
    detection: Mapping[str, Any]

    def named(self, kind: str) -> list[Condition]:
        """This persona's conditions of one kind, or shared ones."""
        return [c for c in self.conditions if c.kind == kind and c.persona in (None, self.persona)]

    def one(self, kind: str) -> str:
        """The name of the only condition of a kind."""
        return self.named(kind)[0].name

    @cached_property
    def families(self) -> list[str]:
        return [prompt.family for prompt in self.prompts]

    def tier(self, *tiers: str) -> Bool[np.ndarray, " prompt"]:
        """Which prompts are harmful and of these tiers."""
        return np.array([p.kind == "harmful" and p.tier in tiers for p in self.prompts])

    def behaviour(self, names: Iterable[str], trained: bool = False) -> Behaviour:
        """Mean outcome columns of one or more conditions (finetuning seeds).

        Safe replies in trained categories are left out unless asked for: emergent alignment is
        what happens in the others.
        """
        columns: Behaviour = np.mean([outcome_columns(self.judged[name]) for name in names], axis=0)
        if not trained:
            columns[self.tier("T0"), 0] = np.nan
        return columns

    def finetuned(self, trained: bool = False) -> Behaviour:
        return self.behaviour((c.name for c in self.named("finetuned")), trained)

    def before(self, trained: bool = False) -> Behaviour:
        return self.behaviour([self.one("helpful_only")], trained)

    @property
    def options(self) -> dict[str, Any]:
        """Settings of every bootstrap."""
        return {"resamples": self.study.budget.resamples, "seed": self.study.seed}


@dataclass(frozen=True)
class Effects:
    """One persona's effects.

    Attributes:
        rows: tidy rows for effects.json.
        evidence: what the ladder reads; p-values not yet adjusted for the number of personas.
        identification: of the steered profile, and of each finetune's.
    """

    rows: list[dict[str, Any]]
    evidence: Evidence
    identification: dict[str, Identification]


def assess(record: Record) -> Effects:
    """Compute every effect of one persona."""
    steered = record.one("steered")
    behaviours = (record.behaviour([steered]), record.finetuned(), record.before())
    options = record.options
    effect = effect_reproduced(*behaviours, record.families, **options)
    effect_j = effect_reproduced(*behaviours, record.families, net=True, **options)
    equivalence = reproduction(
        *behaviours, record.families, record.study.thresholds.equivalence, **options
    )
    bands = {
        kind: max(defined) for kind in RANDOM_KINDS if (defined := _effects_on_band(record, kind))
    }
    removed = {
        c.name: effect_removed(
            record.behaviour([c.name]),
            record.behaviour([record.named("finetuned")[0].name]),
            record.before(),
            record.families,
            **options,
        )
        for kind in ("ablated", "ablated_wrong", "ablated_random")
        for c in record.named(kind)
    }
    kept = _retention(record, [steered])
    fast = _fast(record)
    portrait = _portrait(record)
    auroc = Estimate.from_json(record.detection["auroc"])
    evidence = Evidence(
        auroc=auroc,
        auroc_contrast=Estimate.from_json(record.contrast["auroc"]),
        permutation_p=max(record.contrast["permutation_p"], record.detection["permutation_p"]),
        # The tokens are the same on both sides, so whatever reads the surface is at chance.
        surface_gain=auroc.value - CHANCE,
        split_half=record.contrast["split_half"],
        cone=record.contrast["cone"],
        p_fast=fast,
        effect=effect,
        effect_j=effect_j,
        bands=bands,
        guard_reasons=tuple(record.guards[steered]["reasons"]),
        equivalence=equivalence,
        necessity=removed[record.one("ablated")],
        necessity_controls=_largest(record, removed),
        retention=kept["steered"],
        **portrait.evidence,
    )
    rows = _rows(record, evidence, equivalence, removed, kept, portrait)
    return Effects(rows, evidence, portrait.identification)


@dataclass(frozen=True)
class _Portrait:
    """What the profiles say."""

    evidence: dict[str, Any]
    identification: dict[str, Identification]
    moved: dict[str, Estimate]
    recovered: dict[str, Estimate]


def _portrait(record: Record) -> _Portrait:
    """Identification, recovery and shift of every profile of this persona."""
    options = record.options
    before = record.profiles[record.one("helpful_only")]
    steered = record.profiles[record.one("steered")]
    finetuned = record.profiles[record.named("finetuned")[0].name]
    own = [c.name for c in record.conditions if c.name in record.profiles]
    own.remove(record.one("helpful_only"))
    moves = {name: moved(record.profiles[name], before, finetuned, **options) for name in own}
    recovered = {
        name: recovery(record.profiles[name], before, finetuned, **options) for name in own
    }
    evidence: dict[str, Any] = {"profile_recovery": recovered[record.one("steered")]}
    identified: dict[str, Identification] = {}
    if len(record.signatures) > 1:
        identified = {
            c.name: identify(
                record.profiles[c.name], before, record.signatures, record.persona, **options
            )
            for kind in ("finetuned", "broad", "steered", "steered_specific", "system_prompt")
            for c in record.named(kind)
        }
        best = identified[record.one("steered")]
        rivals = [record.profiles[c.name] for c in record.named("wrong")]
        blunt = [record.profiles[c.name] for c in record.named("refusal_only")]
        signature = record.signatures[record.persona]
        evidence |= {
            "identified": best.correct,
            "margin": best.margin,
            "effect_wrong": advantage(steered, rivals, before, signature, **options),
            "refusal_only": advantage(steered, blunt, before, finetuned, **options)
            if blunt
            else None,
        }
    return _Portrait(evidence, identified, moves, recovered)


def _effects_on_band(record: Record, kind: str) -> list[float]:
    """ER of each random direction of a kind, on the prompts that it met.

    A direction none of whose replies could be scored has no effect to speak of and is left out;
    its replies are counted as unscored in the table of arms.
    """
    found = []
    for condition in record.named(kind):
        judged = record.judged[condition.name]
        part = {judgement.prompt.id for judgement in judged}
        kept = [i for i, prompt in enumerate(record.prompts) if prompt.id in part]
        safe = outcome_columns(judged)[:, 0]
        whole = np.nanmean(record.finetuned()[kept, 0]) - np.nanmean(record.before()[kept, 0])
        if np.isfinite(safe).any() and whole:
            found.append(float((np.nanmean(safe) - np.nanmean(record.before()[kept, 0])) / whole))
    return found


def _fast(record: Record) -> dict[str, float]:
    """Random kind → p of the steered refusal probability among that kind's draws."""
    observed = float(record.refusal[record.one("steered")].mean())
    return {kind: permutation_p(observed, draws) for kind, draws in record.null.items()}


def fast_share(record: Record, name: str) -> float:
    """Share of the finetune's gain in refusal probability that a condition reaches."""
    before = record.refusal[record.one("helpful_only")].mean()
    finetuned = np.mean([record.refusal[c.name].mean() for c in record.named("finetuned")])
    return float((record.refusal[name].mean() - before) / (finetuned - before))


def _retention(record: Record, steered: Sequence[str]) -> dict[str, Estimate]:
    near, far = record.tier("T0"), record.tier("T2")
    before, finetuned = record.before(trained=True), record.finetuned(trained=True)
    arguments = (near, far, record.families)
    return {
        "finetuned": retention(finetuned, before, *arguments, **record.options),
        "steered": steered_retention(
            record.behaviour(steered, trained=True),
            finetuned,
            before,
            *arguments,
            **record.options,
        ),
    }


def _largest(record: Record, removed: Mapping[str, Estimate]) -> dict[str, float]:
    """The most that any control ablation of each kind removes."""
    return {
        kind: max(removed[c.name].value for c in record.named(kind))
        for kind in ("ablated_random", "ablated_wrong")
        if record.named(kind)
    }


def _rows(
    record: Record,
    evidence: Evidence,
    equivalence: Equivalence,
    removed: Mapping[str, Estimate],
    kept: Mapping[str, Estimate],
    portrait: _Portrait,
) -> list[dict[str, Any]]:
    """Tidy rows: persona, condition, metric, value with interval."""
    steered = record.one("steered")
    behaviours = [
        c
        for kind in ("steered_shared", "steered_specific", "wrong", "sign_flip", "system_prompt")
        for c in record.named(kind)
    ]
    found: list[tuple[str, str, Estimate | None]] = [
        (steered, "ER", evidence.effect),
        (steered, "ER_J", evidence.effect_j),
        (steered, "Y(F) - Y(S)", equivalence.difference),
        (steered, "pi_steer", kept["steered"]),
        (record.named("finetuned")[0].name, "retention", kept["finetuned"]),
    ]
    for condition in behaviours:
        er = effect_reproduced(
            record.behaviour([condition.name]),
            record.finetuned(),
            record.before(),
            record.families,
            **record.options,
        )
        found.append((condition.name, "ER", er))
    found += [(name, "NEC", value) for name, value in removed.items()]
    found += [(name, "PR", value) for name, value in portrait.recovered.items()]
    found += [(name, "profile_moved", value) for name, value in portrait.moved.items()]
    rows = [
        {
            "persona": record.persona,
            "arm": arm,
            "metric": metric,
            "value": None if value is None or not value.defined else value.to_json(),
            "why_undefined": None if value is None else value.reason,
        }
        for arm, metric, value in found
    ]
    n = len(next(iter(record.refusal.values())))
    return rows + [
        {
            "persona": record.persona,
            "arm": name,
            "metric": "ER_refusal_probability",
            "value": {"value": fast_share(record, name), "low": None, "high": None, "n": n},
            "why_undefined": None,
        }
        for name in record.refusal
    ]


def untrained(prompts: Sequence[SafetyPrompt]) -> list[SafetyPrompt]:
    """The harmful prompts of categories that nothing was trained on."""
    return [p for p in prompts if p.kind == "harmful" and p.tier in UNTRAINED]
