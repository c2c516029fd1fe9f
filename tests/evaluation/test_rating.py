"""Statements on a scale and scenarios, against the same sums done plainly; forms and fallback."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.activations.contrast import under
from persona_probe.evaluation.profile import Questionnaire, profiles
from persona_probe.evaluation.rating import label_tokens, rate
from persona_probe.personas.diagnostic import Diagnostic, Item, Scale
from persona_probe.steering.arm import Arm

OPTIONS = ("Agree.", "So so.", "Disagree.")
SCALE = Scale(
    OPTIONS,
    {"digits": ("1", "2", "3"), "letters": ("A", "B", "C")},
    {"digits": "number", "letters": "letter"},
    (
        "{statement}\n{options}\nOne {kind}.",
        "{options}\n{statement}\nThe {kind}?",
        "{statement}? {options} {kind}",
    ),
)
STATEMENTS = tuple(
    Item(f"s{i}", "RULE", key, "scale", f"s{i}", text, OPTIONS)
    for i, (key, text) in enumerate([(1, "Promises bind {all}."), (-1, "Promises bend.")])
)
SCENARIO = Item(
    "a0", "RULE", 1, "scenario", "a0", "Shall I go?", ("Yes, gladly.", "No, it would harm.")
)
ARM = [Arm("plain")]


def next_log_p(model: Any, text: str, system: str = "") -> torch.Tensor:
    ids = model.encode(under(system, text), add_generation_prompt=True).ids
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0, -1].double()
    return logits.log_softmax(dim=-1)


def test_forms_are_balanced_and_every_statement_stands_in_each() -> None:
    forms = SCALE.forms(4)
    assert sum(form.descending for form in forms) == 2
    assert sum(form.labels == "digits" for form in forms) == 2
    assert len(set(SCALE.forms())) == 12
    assert set(SCALE.forms(4)) <= set(SCALE.forms(8))
    shown = SCALE.ask(STATEMENTS[0].text, forms[0])
    assert "Promises bind {all}." in shown
    assert "1. Agree.\n2. So so.\n3. Disagree." in shown
    falling = next(form for form in forms if form.descending and form.labels == "letters")
    assert "A. Disagree.\nB. So so.\nC. Agree." in SCALE.ask("x", falling)


def test_agreement_is_the_expectation_over_the_labels_only(tiny_model: Any) -> None:
    found = rate(tiny_model, STATEMENTS, SCALE, ARM, "Be kind.", n_forms=12, read_by="labels")
    assert not found.in_words.any()
    for f, form in enumerate(found.forms):
        asked = SCALE.ask(STATEMENTS[1].text, form)
        log_p = next_log_p(tiny_model, asked, "Be kind.")
        tokens = label_tokens(tiny_model, under("Be kind.", asked), SCALE.labels[form.labels])
        p = np.array([sum(float(log_p[t].exp()) for t in several) for several in tokens])
        values = np.array([-1.0, 0, 1] if form.descending else [1.0, 0, -1])
        assert found.label_mass[0, 1, f] == pytest.approx(p.sum(), rel=1e-4)
        assert found.agreement[0, 1, f] == pytest.approx((p * values).sum() / p.sum(), abs=1e-4)


def test_a_model_that_does_not_answer_in_labels_is_read_in_words(tiny_model: Any) -> None:
    found = rate(tiny_model, STATEMENTS, SCALE, ARM, n_forms=4)
    assert found.label_mass.mean() < 0.5
    assert found.in_words.all()
    form = found.forms[2]
    asked = under("", SCALE.ask_in_words(STATEMENTS[0].text, form))
    per_token = [_reply_log_p(tiny_model, asked, option) for option in OPTIONS]
    p = np.exp(per_token - np.logaddexp.reduce(per_token))
    assert found.agreement[0, 0, 2] == pytest.approx(p[0] - p[2], abs=1e-4)


def _reply_log_p(model: Any, asked: Any, reply: str) -> float:
    tokens = model.encode(asked.with_reply(reply), add_generation_prompt=False)
    with torch.no_grad():
        log_p = model.network(torch.tensor([tokens.ids])).logits[0].double().log_softmax(-1)
    span = range(tokens.response.start, tokens.response.stop)
    return float(np.mean([float(log_p[i - 1, tokens.ids[i]]) for i in span]))


def test_planted_preference_for_a_label_moves_agreement_and_mass(tiny_model: Any) -> None:
    """The residual before the head is set to the unembedding of the label for full agreement."""
    form = SCALE.forms(1)[0]
    asked = under("", SCALE.ask(STATEMENTS[0].text, form))
    tokens = label_tokens(tiny_model, asked, SCALE.labels[form.labels])
    head = tiny_model.network.get_output_embeddings().weight
    wanted = head[tokens[0][0]] * 1e3

    def plant(resid: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(resid) * wanted

    with tiny_model.hooks([(tiny_model.sites[-1], plant)]):
        found = rate(tiny_model, STATEMENTS, SCALE, ARM, n_forms=1, read_by="labels")
    plain = rate(tiny_model, STATEMENTS, SCALE, ARM, n_forms=1, read_by="labels")
    assert (found.agreement > plain.agreement + 0.1).all()
    assert (found.label_mass > plain.label_mass).all()


def test_a_scenario_scores_the_likelier_reply(tiny_model: Any) -> None:
    diagnostic = Diagnostic(("RULE",), (SCENARIO, replace(SCENARIO, id="a1", key=-1)))
    (found,) = profiles(tiny_model, diagnostic, ARM)
    asked = under("", SCENARIO.text)
    margin = _reply_log_p(tiny_model, asked, SCENARIO.options[0]) - _reply_log_p(
        tiny_model, asked, SCENARIO.options[1]
    )
    assert found.scores == pytest.approx([np.tanh(margin / 2), -np.tanh(margin / 2)], abs=1e-4)
    assert {item.channel for item in found.items} == {"behaviour"}


def test_formats_mix_in_one_profile_and_channels_come_apart(tiny_model: Any) -> None:
    short = Item("q", "RULE", 1, "likert", "q", "Promises bind.", ("Agree.", "Disagree."))
    items = (short, *STATEMENTS, SCENARIO)
    diagnostic = Diagnostic(("RULE",), items, SCALE, foils=(STATEMENTS[0],))
    asked = Questionnaire.of(tiny_model, diagnostic, n_forms=4)
    together, again = asked.ask(tiny_model, [Arm("one"), Arm("two")])
    assert together.scores == pytest.approx(again.scores)
    alone = [
        profiles(tiny_model, replace(diagnostic, items=(item,)), ARM)[0].scores[0] for item in items
    ]
    assert together.scores == pytest.approx(alone, abs=1e-5)
    acted, said = together.of_channel("behaviour"), together.of_channel("self-report")
    assert [i.id for i in acted.items] == ["a0"]
    assert [i.id for i in said.items] == ["q", "s0", "s1"]
    assert together.by_form is not None
    assert np.isnan(together.by_form[[0, 3]]).all()
    assert together.agreement[2] == pytest.approx(-together.scores[2])
    assert [row["in_words"] for row in together.rows()] == [False, True, True, False]
