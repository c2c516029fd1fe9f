"""Scenarios listed in both orders: what the place in the list does is taken out and told."""

from typing import Any

import numpy as np
import pytest

from persona_probe.evaluation.listing import PAGE, listings
from persona_probe.evaluation.profile import Profile
from persona_probe.personas.diagnostic import SCENARIO, Item

REPLIES = (
    ("Tell her the truth today.", "Wait until she asks."),
    ("Keep the promise.", "Do what helps most."),
    ("Ask a wise friend.", "Count the costs."),
    ("Give it back.", "Sell it."),
)


def scenarios(swapped: bool = False) -> tuple[Item, ...]:
    """With `swapped`, the same scenarios with options and keys the other way round."""
    return tuple(
        Item(f"s{n}", "RULE", -1 if swapped else 1, SCENARIO, f"f{n}", f"What now, {n}?",
             pair[::-1] if swapped else pair)
        for n, pair in enumerate(REPLIES)
    )  # fmt: skip


def profile(arm: str, items: tuple[Item, ...], scores: Any = None) -> Profile:
    values = np.linspace(-0.5, 0.5, len(items)) if scores is None else scores
    return Profile(arm, ("RULE",), items, values, np.ones(len(items)))


def arms(tiny_model: Any) -> Any:
    from persona_probe.steering.arm import Arm

    return [Arm("bare"), Arm("tuned", adapter="tuned")]


def test_scores_do_not_depend_on_which_reply_is_written_first(tiny_model: Any) -> None:
    both = arms(tiny_model)
    one, two = (
        listings(tiny_model, [profile(a.name, items) for a in both], both)
        for items in (scenarios(), scenarios(swapped=True))
    )
    for name in ("bare", "tuned"):
        np.testing.assert_allclose(one[name].scores, two[name].scores, atol=1e-6)
        assert one[name].order_effect.value == pytest.approx(two[name].order_effect.value, abs=1e-6)
    assert np.abs(one["bare"].scores - one["tuned"].scores).max() > 1e-6


def test_they_are_the_models_own_probabilities(tiny_model: Any) -> None:
    """Against a plain pass: the last token's distribution over the two letters."""
    import torch

    from persona_probe.activations.contrast import under

    item = scenarios()[0]
    bare = arms(tiny_model)[:1]
    found = listings(tiny_model, [profile("bare", scenarios())], bare)["bare"]
    leans = []
    for one, two in (item.options, item.options[::-1]):
        page = PAGE.format(request=item.text, first=one, second=two)
        ids = tiny_model.encode(under("", page), add_generation_prompt=True).ids
        batch = tiny_model.pad([ids], "right")
        logits = tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
        p = torch.softmax(logits[0, -1].double(), dim=-1)
        a, b = (
            sum(float(p[t]) for t in {tiny_model.tokenizer.encode(s, add_special_tokens=False)[0]
                for s in (letter, f" {letter}")} - shared(tiny_model))
            for letter in "AB"
        )  # fmt: skip
        leans.append((a - b) / (a + b))
    assert found.scores[0] == pytest.approx((leans[0] - leans[1]) / 2, abs=1e-5)


def shared(model: Any) -> set[int]:
    """Tokens that begin both letters say nothing."""
    first = [
        {model.tokenizer.encode(s, add_special_tokens=False)[0] for s in (x, f" {x}")} for x in "AB"
    ]
    return first[0] & first[1]


def test_agreement_is_one_with_itself_and_minus_one_with_its_opposite(tiny_model: Any) -> None:
    bare = arms(tiny_model)[:1]
    scores = listings(tiny_model, [profile("bare", scenarios())], bare)["bare"].scores
    for sign in (1, -1):
        found = listings(tiny_model, [profile("bare", scenarios(), sign * scores)], bare)["bare"]
        assert found.agreement.value == pytest.approx(sign)
        assert found.to_json()["scenarios"] == len(REPLIES)


def test_a_diagnostic_without_scenarios_has_no_second_reading(tiny_model: Any) -> None:
    items = (Item("l", "RULE", 1, "likert", "f", "Well?", ("Yes.", "No.")),)
    assert listings(tiny_model, [profile("bare", items)], arms(tiny_model)[:1]) == {}
