"""Metrics on constructed data: known slopes, known exchanges, known transitions, known tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from persona_probe.errors import RequestError

if TYPE_CHECKING:
    from persona_probe.evaluation.judge import Judgement
    from persona_probe.study.dosing import Response
    from persona_probe.study.mediation import Exchange

OPTIONS = {"resamples": 400, "seed": 0}
STRENGTHS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def response(slopes: np.ndarray, bend: float = 0.0) -> "Response":
    from persona_probe.study.dosing import Response

    a = np.array(STRENGTHS)
    values = slopes[:, None] * a + bend * (np.abs(a) > 0.5) * 100
    names = tuple(str(i) for i in range(len(slopes)))
    families = tuple(str(i // 2) for i in range(len(slopes)))
    return Response("virtue", "margin", STRENGTHS, names, families, values)


def test_slopes_of_a_linear_response_are_found_and_its_contrarians_counted() -> None:
    from persona_probe.study.steerability import steerability

    slopes = np.concatenate([np.full(30, 2.0), np.full(10, -1.0)])
    found = steerability(response(slopes), 1.0, **OPTIONS)
    assert found.slope.value == pytest.approx(1.25)
    assert found.slopes == pytest.approx(tuple(slopes))
    assert (found.anti_steerable.value, found.anti_steerable.n) == (0.25, 40)
    assert found.anti_steerable.low < 0.25 < found.anti_steerable.high
    assert found.monotonicity.value == pytest.approx(0.5)
    assert found.quantiles[2] == pytest.approx(2.0)


def test_strengths_beyond_the_usable_range_enter_no_slope() -> None:
    from persona_probe.study.steerability import steerability

    slopes = np.full(20, 2.0)
    inside = steerability(response(slopes, bend=1.0), 0.5, **OPTIONS)
    assert inside.slope.value == pytest.approx(2.0)
    assert inside.strengths == (-0.5, 0.0, 0.5)
    nothing_usable = steerability(response(slopes), 0.0, **OPTIONS)
    assert nothing_usable.strengths == (-0.5, 0.0, 0.5)


def test_the_usable_range_ends_at_the_first_strength_outside_the_limits() -> None:
    from persona_probe.study.selection import usable_range

    def rows(*quiet: bool) -> list[dict[str, object]]:
        return [{"strength": float(i + 1), "quiet": q} for i, q in enumerate(quiet)][::-1]

    assert usable_range(rows(True, True, False, True)) == 2.0
    assert usable_range(rows(False, True)) == 0.0


def exchange(**changes: np.ndarray) -> "Exchange":
    from persona_probe.study.mediation import Exchange

    rng = np.random.default_rng(0)
    before = rng.normal(size=60)
    values = {"before": before, "after": before + 2, "before_with": before, "after_with": before}
    families = tuple(str(i // 3) for i in range(60))
    about = ("virtue", "narrow", "margin", "all", "direction", None, families)
    return Exchange(*about, **(values | changes))


def test_a_direction_that_carries_everything_mediates_1_and_one_that_carries_nothing_0() -> None:
    e = exchange()
    everything = exchange(before_with=e.after, after_with=e.before).effects(**OPTIONS)
    assert everything["TE"].value == pytest.approx(2)
    assert everything["NIE"].value == pytest.approx(2)
    assert everything["NDE"].value == pytest.approx(0)
    assert everything["proportion"].value == pytest.approx(1)
    assert everything["interaction"].value == pytest.approx(0)
    nothing = exchange(before_with=e.before, after_with=e.after).effects(**OPTIONS)
    assert nothing["proportion"].value == pytest.approx(0)
    assert nothing["NDE"].value == pytest.approx(2)


def test_what_needs_both_is_interaction_and_no_effect_is_undefined() -> None:
    e = exchange()
    both = exchange(before_with=e.before, after_with=e.before).effects(**OPTIONS)
    assert both["interaction"].value == pytest.approx(2)
    assert not exchange(after=e.before).effects(**OPTIONS)["proportion"].defined


def judged(kind: str, outcome: str, name: str = "a") -> "Judgement":
    from persona_probe.evaluation.judge import Judgement
    from persona_probe.evaluation.outcome import Outcome
    from persona_probe.personas.safety_suite import SafetyPrompt
    from persona_probe.steering.generation import Completion

    prompt = SafetyPrompt(name, kind, "theft", "T1", "family", "text")  # type: ignore[arg-type]
    return Judgement(prompt, Completion(name, "arm", 0, "", (), True), Outcome(outcome, "why"))  # type: ignore[arg-type]


def test_the_ledger_counts_replies_that_got_worse_although_the_mean_did_not() -> None:
    from persona_probe.study.harm_ledger import harm_ledger

    before = [judged("harmful", "harmful"), judged("harmful", "refuse")]
    after = [judged("harmful", "refuse"), judged("harmful", "harmful")]
    before += [judged("benign", "safe-helpful"), judged("benign", "unscored")]
    after += [judged("benign", "refuse"), judged("benign", "safe-helpful")]
    found = harm_ledger(before, after)
    assert found["worse"]["value"] == pytest.approx(2 / 3)
    assert found["harmful"]["worse"]["value"] == found["harmful"]["better"]["value"] == 0.5
    assert found["permitted"]["worse"]["n"] == 1
    assert found["unscored"] == 1
    assert {"asked": "permitted", "before": "safe-helpful", "after": "refuse", "count": 1} in (
        found["transitions"]
    )


def test_dominance_is_the_lead_of_the_diagonal_and_p_has_its_floor() -> None:
    from persona_probe.study.transfer import dominance

    own = np.eye(4) + 0.1
    found = dominance(own)
    assert found["value"] == pytest.approx(1.0)
    assert found["p"] == found["floor"] == pytest.approx(1 / 24)
    flat = dominance(np.ones((4, 4)))
    assert (flat["value"], flat["p"]) == pytest.approx((0.0, 1.0))
    assert dominance(np.full((4, 4), np.nan))["value"] is None


def test_holm_is_over_the_whole_family_and_the_largest_kind_counts() -> None:
    from persona_probe.study.necessity import null_p
    from persona_probe.study.nulls import Null

    draws = {"random": np.linspace(0, 0.5, 99), "covariance": np.linspace(0, 1, 99)}
    added = null_p(Null("virtue", "added", None, 0.7, draws, 60))
    assert added["random"] == pytest.approx(0.01)
    assert added["covariance"] > 0.2
    removed = null_p(Null("virtue", "ablated", "narrow", 1.1, draws, 30))
    assert removed == pytest.approx({"random": 0.01, "covariance": 0.01})


def test_a_composite_is_0_when_any_part_is_and_1_when_all_are() -> None:
    from persona_probe.study.sufficiency import composite

    families = [str(i) for i in range(40)]
    perfect = np.full((40, 2), np.nan)
    perfect[:20, 0], perfect[20:, 1] = 1.0, 0.0
    fluent = np.zeros(40)
    assert composite(perfect, fluent, families, **OPTIONS).value == pytest.approx(1)
    blunt = perfect.copy()
    blunt[20:, 1] = 1.0
    assert composite(blunt, fluent, families, **OPTIONS).value == 0
    assert composite(perfect, np.ones(40), families, **OPTIONS).value == 0


def test_a_stage_that_does_not_exist_is_refused_with_those_that_do() -> None:
    from persona_probe.study.stage import NAMES, stage_named

    with pytest.raises(RequestError, match="no stage 'think'; the stages are extract, find"):
        stage_named("think")
    assert len(set(NAMES)) == len(NAMES)


def test_a_model_that_says_anything_else_looks_neither_refusing_nor_complying(
    tiny_llama_folder: Path, small_pack: Path, make_direction: Any, tmp_path: Path
) -> None:
    """Ablations are compared by compliance: a broken reply is no sign that refusals are gone."""
    from persona_probe.study.arms import helpful_only, steered
    from persona_probe.study.channels import preference_channel
    from persona_probe.study.lab import Lab
    from tests.small_study import small_study

    lab = Lab(small_study(tiny_llama_folder, small_pack), tmp_path, "cpu")
    prompts = lab.prompts("evaluate", "harmful", 6)
    direction = make_direction(layer=1)
    conditions = [helpful_only(lab.study), steered(lab.study, "virtue", direction, 50.0)]
    refusing = preference_channel(lab, conditions, prompts)
    complying = preference_channel(lab, conditions, prompts, complying=True)
    for name, mass in refusing.items():
        assert (mass + complying[name] < 1).all()
        assert (mass != complying[name]).any()
    whole, broken = (refusing[c.name].mean() + complying[c.name].mean() for c in conditions)
    assert abs(whole - broken) > 1e-6, "steering changed nothing"
