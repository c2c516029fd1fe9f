"""Questions with one right answer: does a model still know what it knew?

A pack may hold them in `multiple_choice.jsonl`, one per line:

    {"id": …, "family": …, "text": "Which bird …?", "right": "The penguin.", "wrong": ["…", …]}

Options are scored by themselves, as replies, so they stand in no order. Nothing is found or
selected on these questions: all of them evaluate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl

FILE = "multiple_choice.jsonl"


@dataclass(frozen=True)
class ChoiceQuestion:
    """A neutral question.

    Attributes:
        family: questions that share wording share a family.
        right: the right answer, as a reply. wrong: the others.
    """

    id: str
    family: str
    text: str
    right: str
    wrong: tuple[str, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """All answers, the right one first."""
        return (self.right, *self.wrong)


def read_multiple_choice(folder: Path) -> tuple[ChoiceQuestion, ...]:
    """Read a pack's questions; none where it has no such file.

    Raises:
        RequestError: a row is malformed; the message names file, row, value and what it must be.
    """
    path = folder / FILE
    found: dict[str, ChoiceQuestion] = {}
    for number, row in enumerate(read_jsonl(path) if path.exists() else (), start=1):
        where = f"{path}, row {number}"
        question = _question(row, where)
        if question.id in found:
            raise RequestError(f"{where}: the id {question.id!r} occurs twice; rename one")
        found[question.id] = question
    return tuple(found.values())


def _question(row: Any, where: str) -> ChoiceQuestion:
    if not isinstance(row, Mapping):
        raise RequestError(f"{where}: {row!r} must be an object with 'id', 'text', 'right' …")
    said = {key: row.get(key) for key in ("id", "family", "text", "right")}
    for key, value in said.items():
        if not isinstance(value, str) or not value.strip():
            raise RequestError(f"{where}: {key!r} is {value!r}; it must be a text")
    wrong = row.get("wrong")
    texts = isinstance(wrong, list) and all(isinstance(v, str) and v.strip() for v in wrong)
    if not isinstance(wrong, list) or not wrong or not texts:
        raise RequestError(f"{where}: 'wrong' is {wrong!r}; it must be a list of texts")
    question = ChoiceQuestion(**{k: str(v) for k, v in said.items()}, wrong=tuple(wrong))
    if len(set(question.options)) < len(question.options):
        raise RequestError(
            f"{where}: the options {list(question.options)} must differ from each other"
        )
    return question
