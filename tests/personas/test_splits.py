"""Splits by family: disjoint, complete, stable, and enforced."""

import pytest

from persona_probe.errors import RequestError, SplitLeakError
from persona_probe.personas.splits import PARTS, split_families

FAMILIES = [f"family-{i}" for i in range(40)]


def test_every_family_serves_exactly_one_purpose_in_the_shares_asked_for() -> None:
    split = split_families(FAMILIES, seed=1)
    parts = [getattr(split, part) for part in PARTS]
    assert [len(part) for part in parts] == [20, 8, 12]
    assert frozenset.union(*parts) == frozenset(FAMILIES)
    assert sum(len(part) for part in parts) == len(FAMILIES)


def test_order_and_repetition_do_not_matter_but_the_seed_does() -> None:
    split = split_families(FAMILIES, seed=1)
    assert split_families(reversed(FAMILIES * 2), seed=1).hash == split.hash
    assert split_families(FAMILIES, seed=2).hash != split.hash


def test_filtered_families_only_ever_evaluate() -> None:
    filtered = FAMILIES[:10]
    split = split_families(FAMILIES, only_evaluate=filtered)
    assert split.evaluate >= set(filtered)
    assert not set(filtered) & (split.find | split.select)


def test_using_a_prompt_for_a_second_purpose_raises() -> None:
    split = split_families(FAMILIES)
    split.require_part(sorted(split.evaluate), "evaluate")
    with pytest.raises(SplitLeakError, match="not in the 'evaluate' part"):
        split.require_part([*split.evaluate, *split.find], "evaluate")


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(RequestError, match="add up to 1"):
        split_families(FAMILIES, shares=(0.5, 0.5, 0.5))


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(RequestError, match="'new' is not in this split"):
        split_families(FAMILIES).part_of("new")
