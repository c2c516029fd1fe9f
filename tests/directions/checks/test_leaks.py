"""Evaluating on what was used to find or to select is refused at every entry point."""

from dataclasses import replace
from typing import Any

import pytest

from persona_probe.directions.finders import finder_named
from persona_probe.errors import SplitLeakError


@pytest.fixture
def parts(planted: Any) -> dict[str, Any]:
    """Activations by part of a split, the split, and directions found on its find part."""
    from persona_probe.directions.finder import find_directions
    from persona_probe.personas.splits import split_families

    activations = planted(families=20, per_family=4, gap=5.0).activations
    split = split_families(activations.families)
    found = find_directions(
        activations.where(families=split.find),
        finder_named("mean_difference"),
        "hero",
        "neutral",
        split=split,
    )
    by_part = activations.split(split)
    return {**by_part, "split": split, "directions": found, "all": activations}


FEW = {"permutations": 19, "relabellings": 9}


def test_what_found_cannot_evaluate_or_select(parts: dict[str, Any]) -> None:
    from persona_probe.directions.checks.selection import select_site, separations
    from persona_probe.directions.checks.validation import validate

    directions = parts["directions"]
    for leak in (parts["find"], parts["all"]):
        with pytest.raises(SplitLeakError, match="was found or selected on"):
            validate(directions, leak, **FEW)
        with pytest.raises(SplitLeakError, match="was found or selected on"):
            select_site(directions, leak, 3)
        with pytest.raises(SplitLeakError, match="was found or selected on"):
            separations(directions, leak)


def test_what_selected_cannot_evaluate_and_the_direction_remembers_which_is_which(
    parts: dict[str, Any],
) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.directions.checks.validation import validate

    split = parts["split"]
    chosen = select_site(parts["directions"], parts["select"], 3, split=split)
    assert chosen.families_selected == split.select
    assert chosen.families_used == split.find | split.select
    with pytest.raises(SplitLeakError):
        validate({chosen.site: chosen}, parts["select"], **FEW)
    fine = validate({chosen.site: chosen}, parts["evaluate"], parts["all"].where(
        families=split.find | split.select), split=split, **FEW)  # fmt: skip
    assert fine.rows[0].reliability is not None
    # The select families chose the site; the vector knows nothing of them.
    assert fine.rows[0].reliability.n == len(parts["find"])


def test_controls_may_not_be_found_on_what_judges_them(parts: dict[str, Any]) -> None:
    from persona_probe.directions.checks.validation import validate

    with pytest.raises(SplitLeakError, match="in `found_on` and in `held_out`"):
        validate(parts["directions"], parts["evaluate"], parts["all"], **FEW)


def test_each_part_of_a_given_split_serves_its_purpose_only(parts: dict[str, Any]) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.directions.checks.validation import validate

    split, directions = parts["split"], parts["directions"]
    with pytest.raises(SplitLeakError, match="not in the 'evaluate' part"):
        validate(directions, parts["select"], split=split, **FEW)
    with pytest.raises(SplitLeakError, match="not in the 'select' part"):
        select_site(directions, parts["evaluate"], 3, split=split)
    other = replace(split, seed=1, select=split.evaluate, evaluate=split.select)
    with pytest.raises(SplitLeakError, match="their parts overlap"):
        validate(directions, parts["select"], split=other, **FEW)


def test_sums_remember_what_all_of_their_terms_were_found_and_selected_on(
    parts: dict[str, Any],
) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.directions.checks.validation import validate

    chosen = select_site(parts["directions"], parts["select"], 3)
    plain = parts["directions"][chosen.site]
    for joined in (chosen + plain, plain - 2 * chosen, -chosen, 3 * chosen):
        with pytest.raises(SplitLeakError):
            validate({joined.site: joined}, parts["select"], **FEW)
    assert (plain + chosen).families_selected == chosen.families_selected


def test_validation_carries_the_hashes_of_what_it_used(parts: dict[str, Any]) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.provenance import content_hash

    split = parts["split"]
    told = validate(parts["directions"], parts["evaluate"], **FEW).to_json()
    assert told["split_hash"] == split.hash
    assert told["used_hash"] == content_hash(sorted(split.find))
    assert told["held_out_hash"] == content_hash(sorted(split.evaluate))
    assert told["effort"] == {**FEW, "seed": 0}


def test_a_file_carries_what_it_was_found_and_selected_on(
    parts: dict[str, Any], tmp_path: Any
) -> None:
    from persona_probe.directions.checks.selection import select_site
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.direction_set import load_directions, save_directions

    chosen = select_site(parts["directions"], parts["select"], 3)
    save_directions({"hero": {chosen.site: chosen}}, tmp_path)
    loaded = load_directions(tmp_path)["hero"]
    assert loaded[chosen.site].families_selected == chosen.families_selected
    assert loaded[chosen.site].split_hash == parts["split"].hash
    for leak in ("find", "select"):
        with pytest.raises(SplitLeakError):
            validate(loaded, parts[leak], **FEW)
    validate(loaded, parts["evaluate"], **FEW)
