"""A few of many: even over categories and families, nested, and in the order given."""

from collections import Counter

from persona_probe.personas.diagnostic import Diagnostic, Item
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread, spread_items

PROMPTS = [
    SafetyPrompt(f"{c}-{f}-{i}", "harmful", c, "T1", f"{c}-{f}", "…")
    for c, families in (("large", 8), ("small", 2))
    for f in range(families)
    for i in range(5)
]


def test_categories_take_turns_whatever_their_size() -> None:
    counts = Counter(prompt.category for prompt in spread(PROMPTS, 12))
    assert counts == {"large": 6, "small": 6}


def test_families_take_turns_within_a_category() -> None:
    chosen = [p for p in spread(PROMPTS, 16) if p.category == "large"]
    assert Counter(Counter(prompt.family for prompt in chosen).values()) == {1: 8}


def test_a_smaller_sample_is_part_of_a_larger_one_and_keeps_the_order() -> None:
    few, many = spread(PROMPTS, 9), spread(PROMPTS, 20)
    assert set(few) < set(many)
    assert many == [prompt for prompt in PROMPTS if prompt in many]


def test_asking_for_more_than_there_is_gives_everything() -> None:
    assert spread(PROMPTS, 1000) == PROMPTS


def test_items_are_even_over_dimensions_and_keys() -> None:
    items = tuple(
        Item(f"{d}{key}{i}", d, key, "statement", f"f{i}", "…", ("Agree.", "Disagree."))
        for d in ("RULE", "CARE")
        for key in (1, -1)
        for i in range(6)
    )
    chosen = spread_items(Diagnostic(("RULE", "CARE"), items), 8)
    assert Counter((item.dimension, item.key) for item in chosen.items) == {
        (d, key): 2 for d in ("RULE", "CARE") for key in (1, -1)
    }


def test_few_items_are_statements_of_both_keys_and_more_let_the_model_act_as_well() -> None:
    items = tuple(
        Item(f"{format_}-{key}-{n}", "RULE", key, format_, "f", "Well?", ("Yes.", "No."))
        for format_, count in (("likert", 20), ("choice", 2))
        for key in (1, -1)
        for n in range(count)
    )
    whole = Diagnostic(("RULE",), items)
    few = Counter((item.format, item.key) for item in spread_items(whole, 2).items)
    assert few == {("likert", 1): 1, ("likert", -1): 1}
    more = Counter(item.format for item in spread_items(whole, 12).items)
    assert more == {"likert": 8, "choice": 4}
