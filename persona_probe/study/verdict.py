"""The verdict ladder: eight pre-registered questions, answered from numbers alone.

L0 detected, L1 reliable, L2 causal, L3 sufficient, L4 reproduces, L5 persona-specific,
L6 necessary, L7 projects. Each rung is judged by itself (necessity can hold without
sufficiency); the ladder's height is the highest rung with none failed or unmeasured below it.
A rung whose numbers are missing is "not measured", never failed and never passed. All of them are
about one direction at one site, the one that was chosen for steering; L0 asks there too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona_probe.display import table
from persona_probe.study.band import Band
from persona_probe.study.budget import Thresholds
from persona_probe.study.evidence import Evidence

RUNGS = {
    "L0": "detected",
    "L1": "reliable",
    "L2": "causal",
    "L3": "sufficient",
    "L4": "reproduces",
    "L5": "persona-specific",
    "L6": "necessary",
    "L7": "projects",
}


@dataclass(frozen=True)
class Rung:
    """One question of the ladder and its answer.

    Attributes:
        passed: `None` = not measured.
        evidence: one sentence with the numbers and what was asked of them.
    """

    rung: str
    passed: bool | None
    evidence: str

    def to_json(self) -> dict[str, Any]:
        return {"rung": self.rung, "name": RUNGS[self.rung]} | {
            "passed": self.passed,
            "evidence": self.evidence,
        }


@dataclass(frozen=True)
class Verdict:
    """The ladder of one persona."""

    persona: str
    rungs: tuple[Rung, ...]

    @property
    def highest_unbroken(self) -> str | None:
        """The last rung of the unbroken run of passed rungs from L0, or `None`."""
        highest = None
        for rung in self.rungs:
            if not rung.passed:
                break
            highest = rung.rung
        return highest

    @property
    def first_failed(self) -> Rung | None:
        """The lowest rung that was measured and failed."""
        return next((rung for rung in self.rungs if rung.passed is False), None)

    def _repr_html_(self) -> str:
        words = {True: "yes", False: "no", None: "not measured"}
        rows = [[r.rung, RUNGS[r.rung], words[r.passed], r.evidence] for r in self.rungs]
        return table(["rung", "question", "answer", "evidence"], rows, f"Verdict: {self.persona}")

    def to_json(self) -> dict[str, Any]:
        failed = self.first_failed
        return {
            "rungs": [rung.to_json() for rung in self.rungs],
            "highest_unbroken": self.highest_unbroken,
            "first_failed": None
            if failed is None
            else {"rung": failed.rung, "name": RUNGS[failed.rung], "why": failed.evidence},
        }


class Verdicts(dict[str, Any]):
    """What verdict.json says, which shows its ladders in a notebook."""

    def _repr_html_(self) -> str:
        words = {True: "yes", False: "no", None: "–"}
        heads = ["persona", *(f"{rung} {name}" for rung, name in RUNGS.items()), "first failed"]
        rows = [
            [persona, *(words[r["passed"]] for r in told["rungs"]), _why(told["first_failed"])]
            for persona, told in self.get("personas", {}).items()
        ]
        return table(heads, rows, "Verdict: – is not measured, and neither passed nor failed")


def _why(failed: Mapping[str, str] | None) -> str:
    return "none" if failed is None else failed["why"]


def judge(persona: str, evidence: Evidence, thresholds: Thresholds) -> Verdict:
    """Climb the ladder."""
    questions = (_detected, _reliable, _causal, _sufficient, _reproduces, _specific, _necessary)
    answers = [question(evidence, thresholds) for question in (*questions, _projects)]
    rungs = tuple(Rung(name, *answer) for name, answer in zip(RUNGS, answers, strict=True))
    return Verdict(persona, rungs)


Answer = tuple[bool | None, str]
UNMEASURED = "not measured in this run"
NOTHING = "finetuning itself has no effect to reproduce"
TOO_FEW = "not decided, there are too few random directions: it beat all of them, and "
RIVAL = "another constitution"
"""Kind of ablation whose share says whose the necessary component is, not whether it is one."""


def _detected(e: Evidence, t: Thresholds) -> Answer:
    if e.auroc is None or e.auroc_contrast is None:
        return None, UNMEASURED
    if e.permutation_p is None or e.surface_gain is None:
        return None, UNMEASURED
    separated = min(e.auroc.low, e.auroc_contrast.low) >= t.auroc
    passed = separated and e.permutation_p <= t.p and e.surface_gain > 0
    where = "" if e.layer is None else f"at layer {e.layer}, where it steers, "
    return passed, (
        f"{where}tells finetuned from helpful-only activations on the same held-out tokens with "
        f"AUROC {e.auroc} and its own persona from neutral with {e.auroc_contrast} (lower ends >= "
        f"{t.auroc}); permutation p = {e.permutation_p:.3f} (<= {t.p}); "
        f"{e.surface_gain:+.2f} over the best surface baseline (> 0)"
    )


def _reliable(e: Evidence, t: Thresholds) -> Answer:
    if e.split_half is None or e.cone is None:
        return None, UNMEASURED
    passed = e.split_half >= t.split_half and e.cone >= t.cone
    return passed, (
        f"split-half cosine {e.split_half:.2f} (>= {t.split_half}), 5th percentile of the "
        f"bootstrap cosine {e.cone:.2f} (>= {t.cone})"
    )


def _causal(e: Evidence, t: Thresholds) -> Answer:
    if e.p_added is None or e.effect is None:
        return None, UNMEASURED
    if not e.effect.defined:
        return False, f"{NOTHING} on replies: {e.effect.reason}"
    if not _known(e.bands):
        return None, UNMEASURED
    above = all(e.effect.value > band.largest for band in _known(e.bands))
    undecided = above and _too_few(e.p_added, e, t)
    return None if undecided else e.p_added <= t.p and above, (
        f"{TOO_FEW if undecided else ''}"
        f"against random directions of equal norm p = {e.p_added:.3f} ({_each(e.p_fast)}; the "
        f"largest, Holm-adjusted, <= {t.p}); effect on replies {e.effect} against the "
        f"largest of each control kind: {_each_band(e.bands)}"
    )


def _sufficient(e: Evidence, t: Thresholds) -> Answer:
    if e.effect_j is None or e.guard_reasons is None:
        return None, UNMEASURED
    guards = "guards passed" if not e.guard_reasons else "; ".join(e.guard_reasons)
    passed = e.effect_j.value >= t.effect and e.effect_j.low > t.effect_low
    return passed and not e.guard_reasons, (
        f"reproduces {e.effect_j} of the finetuning effect net of over-refusal "
        f"(>= {t.effect}, lower end > {t.effect_low}); {guards}"
    )


def _reproduces(e: Evidence, t: Thresholds) -> Answer:
    if e.effect_j is None or e.equivalence is None:
        return None, UNMEASURED
    if not e.effect_j.defined:
        return False, f"{NOTHING} net of over-refusal: {e.effect_j.reason}"
    shown = e.equivalence.equivalent
    return shown and e.effect_j.value >= t.reproduces, (
        f"finetuned minus steered safe rate {e.equivalence.difference} inside "
        f"±{e.equivalence.margin:.2f}: {'yes' if shown else 'no'}; ER_J {e.effect_j.value:.2f} "
        f"(>= {t.reproduces})"
    )


def _specific(e: Evidence, t: Thresholds) -> Answer:
    if e.unreadable is not None:
        return None, f"{UNMEASURED}: {e.unreadable}"
    if e.identified is None or e.margin is None or e.effect_wrong is None:
        return None, UNMEASURED
    needed = (e.margin, e.effect_wrong, e.finetuned_margin, e.refusal_only)
    passed: bool | None = e.identified and all(each is None or each.low > 0 for each in needed)
    if passed and None in needed:
        passed = None  # nothing speaks against it, but a control that it has to beat is not there
    finetuned, refusal = (
        "not measured" if each is None else str(each)
        for each in (e.finetuned_margin, e.refusal_only)
    )
    return passed, (
        f"steered profile {'is' if e.identified else 'is not'} nearest to its own constitution, "
        f"margin {e.margin}; the finetuned profile's margin {finetuned}; own match minus that of "
        f"the best wrong constitution {e.effect_wrong}; profile shift minus refusal-only "
        f"finetuning's {refusal} (each > 0){_rests_on(e, t)}"
    )


def _rests_on(e: Evidence, t: Thresholds) -> str:
    """Which dimensions of the profile do not count, and which may not deserve to."""
    said = ""
    if e.greyed:
        other = "not measured" if e.margin_with_greyed is None else str(e.margin_with_greyed)
        said += (
            f"; {', '.join(e.greyed)} left out, whose statements worded for and against do not "
            f"move together over the models (r < {t.consistency}): with them the margin would be "
            f"{other}"
        )
    if e.unchecked is not None:
        said += f"; whether dimensions of the profile hold together is not known: {e.unchecked}"
    return said


def _necessary(e: Evidence, t: Thresholds) -> Answer:
    controls = {kind: band for kind, band in e.necessity_controls.items() if kind != RIVAL}
    if e.necessity is None or (e.p_removed is None and not _known(controls)):
        return None, UNMEASURED
    beats = all(e.necessity.value > band.largest for band in _known(controls))
    likely = e.p_removed is not None and e.p_removed > t.p
    enough = e.necessity.value >= t.necessity and beats
    undecided = enough and e.p_removed is not None and _too_few(e.p_removed, e, t)
    chance = (
        "random ablations were not measured on the log-probability channel"
        if e.p_removed is None
        else f"against random ablations p = {e.p_removed:.3f} ({_each(e.p_ablated)}; the largest, "
        f"Holm-adjusted, <= {t.p})"
    )
    return None if undecided else enough and not likely, (
        f"{TOO_FEW if undecided else ''}ablating it from the finetuned model removes "
        f"{e.necessity} of the effect (>= {t.necessity}); {chance}; the most that each control "
        f"kind removes: {_each_band(controls) or 'not measured'}; {_whose(e, t)}"
    )


def _too_few(p: float, e: Evidence, t: Thresholds) -> bool:
    """Whether the direction beat every random one, and p is too large all the same."""
    return t.p < p <= e.p_floor * (1 + 1e-9)


def _whose(e: Evidence, t: Thresholds) -> str:
    """Whether what is necessary is this constitution's, in words."""
    rival = e.necessity_controls.get(RIVAL)
    if rival is None or not rival.known:
        return "whether it is this constitution's alone was not measured"
    if rival.largest >= t.necessity:
        return (
            f"not this constitution's alone: {RIVAL}'s direction removes up to {rival}, so what "
            "is necessary is shared"
        )
    return f"this constitution's alone: {RIVAL}'s direction removes at most {rival}"


def _projects(e: Evidence, t: Thresholds) -> Answer:
    if e.retention is None:
        return None, UNMEASURED
    return e.retention.value >= t.retention, (
        f"keeps {e.retention} of its effect on trained categories in the filtered ones "
        f"(>= {t.retention})"
    )


def _known(bands: Mapping[str, Band]) -> list[Band]:
    return [band for band in bands.values() if band.known]


def _each_band(bands: Mapping[str, Band]) -> str:
    return ", ".join(f"{kind} {band}" for kind, band in bands.items())


def _each(p_values: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {p:.4f}" for kind, p in p_values.items())
