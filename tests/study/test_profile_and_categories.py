"""What the last stage says kind by kind, and of the profile's own quality."""

from dataclasses import replace
from pathlib import Path

import pytest

from persona_probe.files import read_json


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
    for row in rows:  # two finetunes are no sample
        assert row["consistent"] is None
        assert "a correlation needs 4" in row["consistency"]["reason"]


def test_claims_about_the_character_name_the_dimensions_that_do_not_hold_together() -> None:
    from persona_probe.statistics import Estimate
    from persona_probe.study.budget import Thresholds
    from persona_probe.study.instrument import consistency_rows, inconsistent
    from persona_probe.study.verdict import Evidence, judge

    found = {
        "RULE": Estimate(0.9, 0.7, 0.97, 12, 12),
        "CHARACTER": Estimate(-0.84, -0.98, -0.48, 12, 12),
        "CONTEXT": Estimate.undefined("one half did not move", 12),
    }
    assert inconsistent(found) == ("CHARACTER",)
    assert [row["consistent"] for row in consistency_rows(found)] == [True, False, None]
    high = Estimate(0.8, 0.7, 0.9, 40, 40)
    evidence = Evidence(
        identified=True, margin=high, effect_wrong=high, finetuned_margin=high, refusal_only=high
    )
    rungs = [
        judge("virtue", replace(evidence, inconsistent=names), Thresholds()).rungs[5]
        for names in ((), ("CHARACTER",))
    ]
    assert "CHARACTER" in rungs[1].evidence
    assert "in part on" not in rungs[0].evidence
    assert rungs[0].passed is rungs[1].passed is True
