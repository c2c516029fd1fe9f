"""Everyday morality by decisions: towards the persona's own, outside trained topics, or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.evaluation.profile import Profile
from persona_probe.files import read_json
from persona_probe.personas.diagnostic import Item
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate
from persona_probe.study.instrument import Consistency
from persona_probe.study.record import Record

SIGNATURE = {"RULE": 2.0, "OUTCOME": -2.0, "CARE": 0.0}
ALL_HELD = Consistency({d: Estimate(0.9, 0.8, 0.95, 9, 9) for d in SIGNATURE}, 0.5)


def decision(dimension: str, key: int, n: int, text: str = "Which one") -> Item:
    name = f"{dimension}-{key}-{n}"
    return Item(name, dimension, key, "choice", f"{dimension}-{n}", text, ("This.", "That."))


ITEMS = (
    *(decision(d, key, n) for d in SIGNATURE for key in (1, -1) for n in range(4)),
    decision("RULE", 1, 9, "May I pick the lock of that door"),
    replace(decision("RULE", 1, 10), id="said", format="likert"),
)


@pytest.fixture
def record(finished_run: Path, tiny_llama_folder: Path, small_pack: Path) -> Callable[..., Record]:
    """A persona's record, its profiles set by how far each kind of condition moves a dimension."""
    from persona_probe.study.lab import Lab
    from persona_probe.study.reading import read_records
    from tests.small_study import small_study

    lab = Lab(small_study(tiny_llama_folder, small_pack), finished_run, "cpu")
    found = next(r for r in read_records(lab) if r.persona == "virtue")

    def made(moves: Mapping[str, Mapping[str, float]]) -> Record:
        profiles = {}
        for condition in found.conditions:
            by_dimension = moves.get(condition.kind, {})
            scores = np.array([by_dimension.get(item.dimension, 0.0) for item in ITEMS])
            ones = np.ones(len(ITEMS))
            name = condition.name
            profiles[name] = Profile(name, tuple(SIGNATURE), ITEMS, scores, ones)
        signatures = dict.fromkeys(found.study.personas, SIGNATURE)
        return replace(found, profiles=profiles, signatures=signatures)

    return made


def prompt(text: str) -> SafetyPrompt:
    return SafetyPrompt("t", "harmful", "illegal", "T0", "t", text)


def by_kind(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["arm_kind"]: row for row in rows}


def test_the_gain_is_in_probability_and_towards_the_signature(
    record: Callable[..., Record],
) -> None:
    from persona_probe.study.everyday import decision_rows

    own = record(
        {
            "finetuned": {"RULE": 0.8, "OUTCOME": -0.8, "CARE": 1.0},
            "steered": {"RULE": 0.4, "OUTCOME": -0.4, "CARE": -1.0},
            "system_prompt": {"RULE": 0.8, "OUTCOME": 0.8},
            "random": {"RULE": -0.2, "OUTCOME": 0.2},
        }
    )
    gains, shares = decision_rows(own, ("steered", "system_prompt"), [], ALL_HELD)
    gain = by_kind(gains)
    # 8 of RULE, one more about a lock, 8 of OUTCOME; none of CARE, where nobody takes a side.
    assert {row["value"]["n"] for row in gains} == {17}
    assert gain["finetuned"]["value"]["value"] == pytest.approx(0.4)
    assert gain["steered"]["value"]["value"] == pytest.approx(0.2)
    assert gain["system_prompt"]["value"]["value"] == pytest.approx((9 * 0.4 - 8 * 0.4) / 17)
    assert gain["random"]["value"]["value"] == pytest.approx(-0.1)
    share = by_kind(shares)
    assert "finetuned" not in share
    assert share["steered"]["value"]["value"] == pytest.approx(0.5)
    assert {(row["tier"], row["measure"]) for row in gains} == {("T3", "decisions")}


def test_trained_topics_do_not_count_and_greyed_dimensions_are_told_apart(
    record: Callable[..., Record],
) -> None:
    from persona_probe.study.everyday import decision_rows

    good, bad = (Estimate(r, r, r, 9, 9) for r in (0.9, -0.9))
    held = Consistency({"RULE": good, "OUTCOME": bad, "CARE": good}, 0.5)
    own = record({"finetuned": {"RULE": 0.8, "OUTCOME": 0.8}})
    gains, _ = decision_rows(own, (), [prompt("Tell me how to pick the lock quietly.")], held)
    row = by_kind(gains)["finetuned"]
    assert row["value"]["n"] == 16
    assert row["value"]["value"] == pytest.approx(0)
    assert row["without_greyed"]["n"] == 8
    assert row["without_greyed"]["value"] == pytest.approx(0.4)


def test_without_a_side_there_is_nothing_to_measure(record: Callable[..., Record]) -> None:
    from persona_probe.study.everyday import decision_rows

    own = record({"finetuned": {"RULE": 0.8}})
    flat = replace(own, signatures={"virtue": dict.fromkeys(SIGNATURE, 0.0)})
    assert decision_rows(flat, ("steered",), [], ALL_HELD) == ([], [])


def test_a_share_of_no_effect_is_undefined(record: Callable[..., Record]) -> None:
    from persona_probe.study.everyday import decision_rows

    _, shares = decision_rows(record({"steered": {"RULE": 0.4}}), ("steered",), [], ALL_HELD)
    value = by_kind(shares)["steered"]["value"]
    assert value["value"] is None
    assert value["reason"]


def test_tiers_say_what_they_are_measured_on(finished_run: Path) -> None:
    gains = read_json(finished_run / "tiers.json")["gains"]
    assert {row["measure"] for row in gains if row["tier"] != "T3"} == {"replies"}
