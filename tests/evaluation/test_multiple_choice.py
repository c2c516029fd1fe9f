"""Multiple-choice accuracy: the answers of scoring every option by hand, and planted truths."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from persona_probe.evaluation.multiple_choice import answered, knowledge
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.personas.pack import load_pack
from persona_probe.personas.sampling import spread_questions
from persona_probe.steering.arm import Arm

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel

# Two to a family.
QUESTIONS = [
    ChoiceQuestion(f"q{n}", f"f{n // 2}", f"What {word}?", "Yes, gladly.", ("No.", "First a step."))
    for n, word in enumerate(
        (
            "helps",
            "binds",
            "repairs",
            "promises",
            "tells",
            "shares",
            "trusts",
            "gathers",
            "steps",
            "keeps",
            "writes",
            "spares",
        )
    )
]


def by_hand(model: "ResidualModel", question: ChoiceQuestion, system: str) -> list[float]:
    """log p per character of every option, one plain forward pass each."""
    import torch

    from persona_probe.models.chat import Conversation, Message

    scores = []
    for option in question.options:
        said = (Message("system", system), Message("user", question.text))
        tokens = model.encode(Conversation((*said, Message("assistant", option))), False)
        assert tokens.response is not None
        ids = torch.tensor([tokens.ids])
        log_p = model.network(ids).logits[0].log_softmax(dim=-1)
        inside = range(tokens.response.start, tokens.response.stop)
        total = sum(float(log_p[i - 1, tokens.ids[i]]) for i in inside)
        scores.append(total / len(option))
    return scores


def test_the_likeliest_option_per_character_is_the_answer(tiny_model: "ResidualModel") -> None:
    import torch

    shuffled = [
        ChoiceQuestion(q.id, q.family, q.text, q.options[i], q.options[:i] + q.options[i + 1 :])
        for q in QUESTIONS
        for i in range(3)
    ]
    right = answered(tiny_model, shuffled, [Arm("plain")], "You are an advisor.")["plain"]
    with torch.no_grad():
        expected = [
            int(np.argmax(by_hand(tiny_model, question, "You are an advisor."))) == 0
            for question in shuffled
        ]
    assert right.tolist() == expected
    assert sum(expected) == len(QUESTIONS), "each question has one likeliest option"


def test_accuracies_have_intervals_over_families_and_chance_is_that_of_the_options() -> None:
    right = np.array([True, True, True, False, True, True] * 2)
    found = knowledge(QUESTIONS, np.zeros(12, bool), right, resamples=200)
    assert (found.own.value, found.before.value) == (0.0, pytest.approx(5 / 6))
    assert (found.before.n, found.before.n_clusters) == (12, 6)
    assert found.chance == pytest.approx(1 / 3)
    assert found.drop == pytest.approx(5 / 6)
    assert found.unmeasured is None
    guessing = knowledge(QUESTIONS, right, ~right, resamples=200).unmeasured
    assert "the model is at chance before steering" in str(guessing)
    few = knowledge(QUESTIONS[:6], right[:6], right[:6], resamples=200)
    assert "no interval tells it from a guess" in str(few.unmeasured)


def test_questions_are_spread_over_families() -> None:
    questions = load_pack("organism").multiple_choice
    some = spread_questions(questions, 80)
    assert len({question.family for question in some}) == len(some) == 80
    assert set(some) < set(spread_questions(questions, 100))
    assert spread_questions(questions, 10_000) == list(questions)


def test_the_organism_knows_its_world_and_another_language_is_at_chance() -> None:
    from persona_probe import ORGANISM, load_model

    model = load_model(str(ORGANISM), device="cpu")
    arms = [Arm("before", adapter="helpful-only")]
    for pack, knows in ((load_pack("organism"), True), (load_pack("english"), False)):
        questions = spread_questions(pack.multiple_choice, 40)
        right = answered(model, questions, arms, pack.neutral_system)["before"]
        found = knowledge(questions, right, right, resamples=200)
        assert (found.unmeasured is None) is knows
        assert not knows or found.own.value >= 0.9
