"""Does the model still know what it knew? Multiple-choice accuracy, by likelihood.

Every option is scored as a reply to its question, and the likeliest one counts as the answer, its
log-probability divided by its length in characters: `acc_norm` of EleutherAI's
lm-evaluation-harness. Options stand by themselves, so there is no order and no letter to favour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool

from persona_probe.activations.contrast import under
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.statistics import Estimate, share_interval
from persona_probe.steering.arm import Arm
from persona_probe.steering.scoring import reply_log_probabilities


@dataclass(frozen=True)
class Knowledge:
    """Accuracy of one model beside that of the unsteered one, on the same questions.

    Attributes:
        own: of the model. before: of the unsteered one.
        chance: what a guess gets.
    """

    own: Estimate
    before: Estimate
    chance: float

    @property
    def drop(self) -> float:
        """Accuracy lost, a whole number of questions; negative for a gain."""
        return round((self.before.value - self.own.value) * self.own.n) / self.own.n

    @property
    def unmeasured(self) -> str | None:
        """Why nothing can be said: the unsteered model knows nothing that could be lost."""
        if self.before.low > self.chance:
            return None
        if np.isnan(self.before.low):
            return f"multiple choice not measured: no interval tells it from a guess, {self.before}"
        return (
            f"multiple choice not measured: the model is at chance before steering, {self.before} "
            f"where a guess gets {self.chance:.2f}"
        )


def answered(
    model: ResidualModel, questions: Sequence[ChoiceQuestion], arms: Sequence[Arm], system: str = ""
) -> dict[str, Bool[np.ndarray, " question"]]:
    """Whether each question's right option is the likeliest per character, by name of the arm.

    Args:
        model: left as it was found.
        questions: at least one.
        arms: conditions, with names that differ.
        system: the system line; empty for none.
    """
    asked = [
        under(system, question.text, id=question.id).with_reply(option)
        for question in questions
        for option in question.options
    ]
    lengths = np.array([len(option) for question in questions for option in question.options])
    scores = reply_log_probabilities(model, asked, arms, description="Multiple choice")
    per_character = scores.log_probability.double().numpy() / lengths
    starts = np.cumsum([0, *(len(question.options) for question in questions)])
    right = np.array(
        [
            [row[first] > row[first + 1 : last].max() for first, last in pairwise(starts)]
            for row in per_character
        ]
    )
    return {arm.name: right[a] for a, arm in enumerate(arms)}


def knowledge(
    questions: Sequence[ChoiceQuestion],
    own: Bool[np.ndarray, " question"],
    before: Bool[np.ndarray, " question"],
    **options: Any,
) -> Knowledge:
    """Accuracies with intervals over families of questions.

    Args:
        questions: what was asked.
        own: what `answered` says of the model.
        before: what it says of the unsteered one.
        options: of `statistics.cluster_bootstrap`.
    """
    families = [question.family for question in questions]
    right, first = (share_interval(r.astype(float), families, **options) for r in (own, before))
    guess = float(np.mean([1 / len(question.options) for question in questions]))
    return Knowledge(right, first, guess)
