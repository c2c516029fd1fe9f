"""A few of many prompts, spread evenly over what they are about."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from persona_probe.personas.diagnostic import Diagnostic, Item
from persona_probe.personas.multiple_choice import ChoiceQuestion
from persona_probe.personas.safety_suite import SafetyPrompt

Asked = TypeVar("Asked", SafetyPrompt, Item, ChoiceQuestion)


def spread(prompts: Sequence[SafetyPrompt], n: int) -> list[SafetyPrompt]:
    """`n` prompts, or all: categories take turns, and families within them; in the order given."""
    kept = set(_dealt(prompts, lambda prompt: (prompt.category, prompt.family))[:n])
    return [prompt for prompt in prompts if prompt in kept]


def spread_items(diagnostic: Diagnostic, n: int) -> Diagnostic:
    """`n` items, or all: dimensions take turns, and within them keys and channels."""

    def groups(item: Item) -> tuple[str, str]:
        return item.dimension, f"{int(item.channel == 'behaviour')} {item.key}"

    kept = set(_dealt(diagnostic.items, groups)[:n])
    items = tuple(item for item in diagnostic.items if item in kept)
    return replace(diagnostic, items=items)


def spread_questions(questions: Sequence[ChoiceQuestion], n: int) -> list[ChoiceQuestion]:
    """`n` multiple-choice questions, or all: families take turns; in the order given."""
    kept = set(_dealt(questions, lambda question: (question.family, ""))[:n])
    return [question for question in questions if question in kept]


def _dealt(items: Sequence[Asked], groups: Callable[[Asked], tuple[str, str]]) -> list[Asked]:
    """Deal items out so that first the outer group takes turns, then the inner one.

    Within a group the order is that of a hash of the id, which favours nothing.
    """
    ordered = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).hexdigest())
    inner = _turns(ordered, groups)
    ordered.sort(key=lambda item: (inner[item], groups(item)))
    outer = _turns(ordered, lambda item: groups(item)[0])
    return sorted(ordered, key=lambda item: (outer[item], groups(item)))


def _turns(ordered: Sequence[Asked], group: Callable[[Asked], Hashable]) -> dict[Asked, int]:
    """How many items of its group come before each."""
    counts: Counter[Hashable] = Counter()
    turn = {}
    for item in ordered:
        turn[item] = counts[group(item)]
        counts[group(item)] += 1
    return turn
