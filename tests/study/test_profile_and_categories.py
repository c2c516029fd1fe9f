"""What the last stage says kind by kind, and of the profile's own quality."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.evaluation.profile import Profile
from persona_probe.files import read_json
from persona_probe.personas.diagnostic import Item
from persona_probe.statistics import Estimate
from persona_probe.steering.arm import Arm
from persona_probe.study.arms import Condition
from persona_probe.study.record import Record


def test_random_directions_are_placed_in_every_category_that_they_met(
    finished_run: Path, tiny_llama_folder: Path, small_pack: Path
) -> None:
    from persona_probe.evaluation.outcome import Outcome
    from persona_probe.study.fractions import band_effects, band_effects_in
    from persona_probe.study.lab import Lab
    from persona_probe.study.reading import read_records
    from tests.small_study import small_study

    lab = Lab(small_study(tiny_llama_folder, small_pack), finished_run, "cpu")
    record = next(r for r in read_records(lab) if r.persona == "virtue")
    first = record.named("random")[0].name
    met = [j.prompt for j in record.judged[first]]
    spared = met[0].category
    safe = {"helpful_only": False, record.finetunes[0].name: True}

    def planted(name: str, category: str) -> Outcome:
        """Finetuned: all safe. The random direction: safe in one category only."""
        good = safe.get(name, name == first and category == spared)
        return Outcome("refuse" if good else "harmful", "planted")

    judged = {
        name: [replace(j, outcome=planted(name, j.prompt.category)) for j in several]
        for name, several in record.judged.items()
    }
    record = replace(record, judged=judged)
    assert {p.tier for p in met} <= {"T1", "T2"}
    categories = {p.category for p in record.prompts if p.kind == "harmful"}
    assert len(categories) > len({p.category for p in met})
    for category in categories:
        found = band_effects_in(record, "random", category)
        asked = sum(p.category == category for p in met)
        assert (first in found) == (asked > 0)
        if asked:
            assert found[first].n == asked
            assert found[first].value == (1.0 if category == spared else 0.0)
    whole = sum(p.category == spared for p in met) / len(met)
    assert band_effects(record, "random")[first] == pytest.approx(whole)


def test_the_profile_says_whether_its_dimensions_hold_together(finished_run: Path) -> None:
    rows = read_json(finished_run / "profiles.json")["consistency"]
    scored = {row["dimension"] for row in read_json(finished_run / "profiles.json")["rows"]}
    assert [row["dimension"] for row in rows] == list(dict.fromkeys(r["dimension"] for r in rows))
    assert {row["dimension"] for row in rows} == scored
    for row in rows:
        # Two finetunes, one of them the placebo as well, and two constitutions.
        assert row["consistency"]["n"] == 5
        known = row["consistency"]["value"] is not None
        assert row["consistent"] == (row["consistency"]["value"] >= 0.5 if known else None)


HIGH = Estimate(0.8, 0.7, 0.9, 40, 40)


def test_dimensions_that_do_not_hold_together_are_named_with_what_they_would_change() -> None:
    from persona_probe.study.budget import Thresholds
    from persona_probe.study.evidence import Evidence
    from persona_probe.study.verdict import judge

    read = Evidence(
        identified=True, margin=HIGH, effect_wrong=HIGH, finetuned_margin=HIGH, refusal_only=HIGH
    )
    greyed = replace(read, greyed=("CHARACTER",), margin_with_greyed=replace(HIGH, value=0.123))
    unreadable = replace(greyed, unreadable="2 of the profile's 8 dimensions hold together")
    unsure = replace(read, unchecked="2 arms, a correlation needs 4")
    plain, named, unread, unknown = (
        judge("virtue", e, Thresholds()).rungs[5] for e in (read, greyed, unreadable, unsure)
    )
    assert "left out" not in plain.evidence
    assert "CHARACTER left out" in named.evidence
    assert "0.123" in named.evidence
    assert plain.passed is named.passed is unknown.passed is True
    assert "is not known: 2 arms" in unknown.evidence
    assert unread.passed is None
    assert "2 of the profile's 8" in unread.evidence


DIMENSIONS = ("RULE", "MEANS", "OUTCOME", "CHARACTER", "CONTEXT")


def asked() -> tuple[Item, ...]:
    """Three statements for and three against each dimension."""
    return tuple(
        Item(f"{d}-{key}-{n}", d, key, "likert", f"{d}-{n}", "Well?", ("Yes.", "No."))
        for d in DIMENSIONS
        for key in (1, -1)
        for n in range(3)
    )


@pytest.fixture
def planted(finished_run: Path, tiny_llama_folder: Path, small_pack: Path) -> Callable[..., Any]:
    """Records of a study with eight more finetunes, whose halves shift as asked.

    `apart` are dimensions in which every model says yes or no to whatever is said; in the others
    each model holds or denies what is said.
    """
    from persona_probe.study.lab import Lab
    from persona_probe.study.reading import read_records
    from tests.small_study import small_study

    lab = Lab(small_study(tiny_llama_folder, small_pack), finished_run, "cpu")
    items = asked()
    key = np.array([item.key for item in items])
    ones = np.ones(len(items))

    def records(apart: Collection[str] = ()) -> list[Record]:
        torn = np.array([item.dimension in apart for item in items])
        rng = np.random.default_rng(0)

        def profile(name: str, size: float) -> Profile:
            of = {d: rng.normal(0, size) for d in DIMENSIONS}
            shift = np.array([of[item.dimension] for item in items])
            noise = rng.normal(0, 0.02, len(items))
            scores = np.where(torn, shift * key, shift) + noise
            return Profile(name, DIMENSIONS, items, scores, ones)

        found = []
        for record in read_records(lab):
            more = [f"broad/{record.persona}/{n}" for n in range(8)]
            names = [*(name for name in record.profiles if name != "helpful_only"), *more]
            still = {"helpful_only": Profile("helpful_only", DIMENSIONS, items, 0 * ones, ones)}
            added = [Condition(Arm(name), "broad", record.persona) for name in more]
            found.append(
                replace(
                    record,
                    profiles=still | {name: profile(name, 0.3) for name in names},
                    conditions=[*record.conditions, *added],
                    signatures={
                        persona: dict(zip(DIMENSIONS, rng.normal(0, 1, 5).tolist(), strict=True))
                        for persona in record.study.personas
                    },
                )
            )
        return found

    return records


def test_yes_saying_greys_a_dimension_and_it_then_counts_in_nothing(
    planted: Callable[..., Any],
) -> None:
    from persona_probe.study.instrument import consistency
    from persona_probe.study.portrait import portraits

    torn = "CHARACTER"
    records = planted((torn,))
    held = consistency(records)
    assert held.greyed == (torn,)
    assert torn not in held.kept
    row = next(row for row in held.rows() if row["dimension"] == torn)
    assert row["consistent"] is False
    assert row["yes_saying"] > row["moved"]
    own, whole = portraits(records[0], [], held)
    steered = records[0].one("steered")
    # What happens in a greyed dimension changes the number beside, and no number that counts.
    profile = records[0].profiles[steered]
    inside = np.array([item.dimension == torn for item in profile.items])
    moved = replace(profile, scores=np.where(inside, 1.0, profile.scores))
    other = replace(records[0], profiles={**records[0].profiles, steered: moved})
    own_then, whole_then = portraits(other, [], held)
    for metric in ("margin", "signature r", "PR", "profile_moved"):
        assert own.estimates[metric][steered] == own_then.estimates[metric][steered], metric
        assert whole.estimates[metric][steered] != whole_then.estimates[metric][steered], metric


def test_with_fewer_than_three_dimensions_left_nothing_is_concluded_from_the_profile(
    planted: Callable[..., Any],
) -> None:
    from persona_probe.study.assessment import assess
    from persona_probe.study.instrument import Consistency

    records = planted()
    names = records[0].profiles["helpful_only"].dimensions
    held = Consistency(
        {d: replace(HIGH, value=0.9 if i < 2 else 0.1) for i, d in enumerate(names)}, 0.5
    )
    found = assess(records[0], [], held)
    assert found.evidence.identified is None
    assert "2 of the profile's" in str(found.evidence.unreadable)
    rows = [row for row in found.rows if row["metric"] == "PR"]
    assert rows
    assert all(row["value"] is None and "are needed" in row["why_undefined"] for row in rows)
    assert any(row["with_greyed"]["value"] is not None for row in rows)


def test_no_steered_model_has_a_say_in_what_holds_together(planted: Callable[..., Any]) -> None:
    from persona_probe.study.instrument import consistency

    records = planted()
    before = consistency(records)
    steered = records[0].one("steered")
    profile = records[0].profiles[steered]
    wild = replace(profile, scores=np.linspace(-1, 1, len(profile.scores)))
    after = consistency([replace(r, profiles={**r.profiles, steered: wild}) for r in records])
    assert before == after
