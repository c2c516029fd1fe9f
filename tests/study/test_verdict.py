"""The ladder: every rung can pass, can fail, and says "not measured" when it was not."""

import math
from dataclasses import replace
from typing import Any

import pytest

from persona_probe.statistics import Equivalence, Estimate
from persona_probe.study.band import Band
from persona_probe.study.budget import Thresholds
from persona_probe.study.evidence import Evidence
from persona_probe.study.verdict import RUNGS, judge


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half, 100, 20)


PERFECT = Evidence(
    auroc=estimate(0.95),
    auroc_contrast=estimate(0.95),
    permutation_p=0.002,
    surface_gain=0.4,
    split_half=0.95,
    cone=0.9,
    p_fast={"random": 0.0025, "covariance": 0.0025},
    p_added=0.04,
    effect=estimate(0.95),
    effect_j=estimate(0.95),
    bands={
        "random": Band(0.1, 60, 60),
        "covariance": Band(0.3, 59, 60),
        "shuffled": Band(0.5, 9, 60),
    },
    guard_reasons=(),
    equivalence=Equivalence(estimate(0.02), 0.2),
    identified=True,
    margin=estimate(0.4),
    finetuned_margin=estimate(0.4),
    profile_recovery=estimate(0.8),
    effect_wrong=estimate(0.3),
    refusal_only=estimate(0.5),
    necessity=estimate(0.9),
    necessity_controls={"random": Band(0.1, 60, 60), "another constitution": Band(0.4, 90, 90)},
    p_ablated={"ablated_random": 0.0025},
    p_removed=0.04,
    retention=estimate(0.95),
)


def answers(evidence: Evidence) -> dict[str, bool | None]:
    return {rung.rung: rung.passed for rung in judge("virtue", evidence, Thresholds()).rungs}


def test_perfect_evidence_climbs_the_whole_ladder() -> None:
    verdict = judge("virtue", PERFECT, Thresholds())
    assert verdict.highest_unbroken == "L7"
    assert verdict.first_failed is None


def test_no_evidence_is_not_measured_and_reaches_nothing() -> None:
    verdict = judge("virtue", Evidence(), Thresholds())
    assert all(rung.passed is None for rung in verdict.rungs)
    assert verdict.highest_unbroken is None
    assert verdict.first_failed is None


@pytest.mark.parametrize(
    ("rung", "change"),
    [
        ("L0", {"auroc": estimate(0.82)}),
        ("L0", {"auroc_contrast": estimate(0.6)}),
        ("L0", {"permutation_p": 0.2}),
        ("L0", {"surface_gain": 0.0}),
        ("L1", {"split_half": 0.7}),
        ("L1", {"cone": 0.6}),
        ("L2", {"p_added": 0.06}),
        ("L2", {"bands": {"random": Band(0.1, 60, 60), "shuffled": Band(0.97, 60, 60)}}),
        ("L2", {"effect": Estimate.undefined("the denominator does not exclude 0", 90)}),
        ("L3", {"effect_j": estimate(0.45)}),
        ("L3", {"effect_j": estimate(0.6, half=0.35)}),
        ("L3", {"guard_reasons": ("12% of replies degenerate (<= 5%)",)}),
        ("L4", {"equivalence": Equivalence(estimate(0.18), 0.2)}),
        ("L5", {"identified": False}),
        ("L5", {"margin": estimate(0.03)}),
        ("L5", {"finetuned_margin": estimate(0.03)}),
        ("L5", {"effect_wrong": estimate(-0.1)}),
        ("L5", {"refusal_only": estimate(0.0)}),
        ("L6", {"necessity": estimate(0.4)}),
        ("L6", {"necessity_controls": {"random": Band(0.95, 60, 60)}}),
        ("L6", {"p_removed": 0.06}),
        ("L7", {"retention": estimate(0.5)}),
        ("L3", {"effect_j": Estimate.undefined("the denominator does not exclude 0")}),
        ("L6", {"necessity": Estimate.undefined("the denominator does not exclude 0")}),
    ],
)
def test_each_condition_of_each_rung_can_fail_it_alone(rung: str, change: dict[str, Any]) -> None:
    changed = answers(replace(PERFECT, **change))
    assert changed.pop(rung) is False
    if rung != "L3" or "effect_j" not in change:
        assert all(passed for passed in changed.values()), "another rung fell with it"


def test_a_failed_rung_stops_the_climb_but_not_the_rungs_above_it() -> None:
    verdict = judge("virtue", replace(PERFECT, guard_reasons=("KL 0.3 nats",)), Thresholds())
    assert verdict.highest_unbroken == "L2"
    assert verdict.first_failed is not None
    assert "KL 0.3 nats" in verdict.first_failed.evidence
    assert [rung.rung for rung in verdict.rungs if rung.passed] == [
        rung for rung in RUNGS if rung != "L3"
    ]


def test_an_unmeasured_rung_stops_the_climb_without_being_a_failure() -> None:
    verdict = judge("virtue", replace(PERFECT, split_half=None), Thresholds())
    assert verdict.highest_unbroken == "L0"
    assert verdict.first_failed is None


@pytest.mark.parametrize("control", ["finetuned_margin", "refusal_only"])
def test_without_its_controls_a_persona_is_neither_shown_nor_refuted(control: str) -> None:
    assert answers(replace(PERFECT, **{control: None}))["L5"] is None
    failing: dict[str, Any] = {control: None, "identified": False}
    assert answers(replace(PERFECT, **failing))["L5"] is False


def test_a_finetune_without_effect_is_a_result_and_not_a_gap() -> None:
    nothing = Estimate.undefined("the denominator 0.00 does not exclude 0")
    null = replace(PERFECT, effect=nothing, effect_j=nothing, bands={})
    verdict = judge("virtue", null, Thresholds())
    assert [rung.rung for rung in verdict.rungs if rung.passed is False] == ["L2", "L3", "L4"]
    assert verdict.highest_unbroken == "L1"
    assert verdict.first_failed is not None
    assert "no effect to reproduce" in verdict.first_failed.evidence
    assert "does not exclude 0" in verdict.first_failed.evidence


@pytest.mark.parametrize(
    ("rival", "words"), [(0.98, "not this"), (0.1, "alone"), (None, "was not")]
)
def test_whose_the_necessary_component_is_stands_in_words_and_decides_nothing(
    rival: float | None, words: str
) -> None:
    controls = {"random": Band(0.1, 60, 60)}
    controls |= {} if rival is None else {"another constitution": Band(rival, 90, 90)}
    rung = judge("virtue", replace(PERFECT, necessity_controls=controls), Thresholds()).rungs[6]
    assert rung.passed
    assert words in rung.evidence


def test_what_controls_did_stands_with_the_replies_that_it_rests_on() -> None:
    broken = {"random": Band(0.1, 60, 60), "covariance": Band(math.nan, 0, 60)}
    found = replace(PERFECT, bands=broken, necessity_controls=broken)
    rungs = {rung.rung: rung for rung in judge("virtue", found, Thresholds()).rungs}
    for rung in (rungs["L2"], rungs["L6"]):
        assert rung.passed, "a control that breaks the model gets nowhere"
        assert "random 0.10 (n = 60 replies)" in rung.evidence
        assert "covariance unknown (0 of 60 replies could be read)" in rung.evidence
    alone = {"covariance": broken["covariance"]}
    unmeasured = replace(PERFECT, bands=alone, necessity_controls=alone, p_removed=None)
    assert answers(unmeasured)["L2"] is answers(unmeasured)["L6"] is None


def test_a_direction_that_beats_all_of_too_few_random_ones_has_not_failed() -> None:
    few = replace(PERFECT, p_added=0.1, p_removed=0.1, p_floor=0.1)
    found = {rung.rung: rung for rung in judge("virtue", few, Thresholds()).rungs}
    for rung in (found["L2"], found["L6"]):
        assert rung.passed is None
        assert "too few random directions" in rung.evidence
    for change in (
        {"p_floor": 0.08},
        {"bands": {"random": Band(0.97, 60, 60)}, "necessity": estimate(0.4)},
    ):
        beaten = answers(replace(few, **change))
        assert beaten["L2"] is beaten["L6"] is False
    assert answers(replace(PERFECT, p_floor=0.04)) == answers(PERFECT)
