"""Prompts in the formats of persona vectors (arXiv:2507.21509): a trait, and a model's answers.

A trait is `{"instruction": [{"pos": …, "neg": …}, …], "questions": […], "eval_prompt": …}`.
Answers are a table with the columns `question,prompt,answer,question_id` and scores. In both, what
shows the trait is labelled with the trait's name and its opposite `NEUTRAL`.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persona_probe.activations.contrast import NEUTRAL, under
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Message
from persona_probe.models.conversations import read_text

SIDES = ("pos", "neg")
COLUMNS = ("question", "prompt", "answer", "question_id")
# evil_3_pos_0: question 3 of the trait evil under its positive instruction 0.
QUESTION_ID = re.compile(r"(?P<trait>.+)_\d+_(?P<side>pos|neg)_\d+")


def trait_prompts(trait: Any, path: Path) -> list[Conversation]:
    """Every question under every instruction of a trait, for it and against it.

    The system prompt is the one of the paper's code, "You are an evil assistant. …" for the trait
    `evil` and "You are a helpful assistant. …" against it.

    Args:
        trait: what the file holds.
        path: of the file; its name without the ending is the trait's.

    Returns:
        Conversations called `evil_3_pos_0` (question 3, instruction 0) as in the paper's code.
        Family = the question.

    Raises:
        RequestError: `trait` is not of this shape; the message says where.
    """
    name = path.stem
    questions, instructions = _questions(trait, path), _instructions(trait, path)
    return [
        under(
            _system(name if side == "pos" else "helpful", instruction[side]),
            question,
            id=f"{name}_{i}_{side}_{k}",
            label=name if side == "pos" else NEUTRAL,
            family=question,
            metadata={"trait": name, "side": side, "question": i, "instruction": k},
            source=f"{path}, question {i}, instruction {k} {side}",
        )
        for i, question in enumerate(questions)
        for k, instruction in enumerate(instructions)
        for side in SIDES
    ]


def _system(name: str, instruction: str) -> str:
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"You are {article} {name} assistant. {instruction}".strip()


def _questions(trait: Any, path: Path) -> list[str]:
    if not isinstance(trait, dict) or not {"instruction", "questions"} <= trait.keys():
        has = ", ".join(map(repr, trait)) if isinstance(trait, dict) else "no object"
        raise RequestError(
            f"{path}: neither a list of conversations nor a trait of persona vectors, which has "
            f'the keys "instruction" and "questions"; it has {has}'
        )
    found = trait["questions"]
    if not _all_text(found):
        raise RequestError(f'{path}: "questions" must be a list of texts, got {found!r:.60}')
    return list(found)


def _instructions(trait: Any, path: Path) -> list[dict[str, str]]:
    found = trait["instruction"]
    if not isinstance(found, list) or not found:
        raise RequestError(f'{path}: "instruction" must be a list of objects, got {found!r:.60}')
    for k, one in enumerate(found):
        if not isinstance(one, dict) or not _all_text([one.get(side) for side in SIDES]):
            raise RequestError(
                f'{path}: instruction {k} must be {{"pos": "text", "neg": "text"}}, got {one!r:.60}'
            )
    return found


def _all_text(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def read_answers(path: Path) -> list[Conversation]:
    """A table of answers, each to be read behind the very text that it was an answer to.

    `prompt` went through a chat template already, so it is read as it is. All other columns are
    `metadata`: numbers where they are numbers, `None` where they are empty.

    Returns:
        Conversations called by their `question_id`, with `#2`, `#3` … for further answers to the
        same. Family = the question. No label where the id has neither `pos` nor `neg`.

    Raises:
        RequestError: the file is missing or is not such a table; the message names the line.
    """
    seen: Counter[str] = Counter()
    found = []
    for line, row in _table(path):
        question_id = row["question_id"]
        seen[question_id] += 1
        again = f"#{seen[question_id]}" if seen[question_id] > 1 else ""
        about = QUESTION_ID.fullmatch(question_id)
        label = None if about is None else about["trait"] if about["side"] == "pos" else NEUTRAL
        found.append(
            Conversation(
                (Message("user", row["prompt"]), Message("assistant", row["answer"])),
                id=question_id + again,
                label=label,
                family=row["question"],
                metadata={k: _value(v) for k, v in row.items() if k and k not in COLUMNS},
                rendered=True,
                source=f"{path}, line {line}",
            )
        )
    if not found:
        raise RequestError(f"{path} holds no answers, only a header")
    return found


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with the number of its first line; its text may span several."""
    # Without newline="", line ends inside an answer would be changed.
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in lines:
            if header is None:
                header = fields
                if missing := [name for name in COLUMNS if name not in header]:
                    raise RequestError(
                        f"{path}, line 1: the column {missing[0]!r} is missing; answers of "
                        f"persona vectors have {', '.join(COLUMNS)}"
                    )
            elif fields and len(fields) != len(header):
                raise RequestError(
                    f"{path}, line {line}: {len(fields)} fields under {len(header)} columns; "
                    "quote what holds a comma"
                )
            elif fields:
                yield line, dict(zip(header, fields, strict=True))
            line = lines.line_num + 1
    except csv.Error as error:
        raise RequestError(f"{path}, line {line}: not CSV ({error})") from None
    if header is None:
        raise RequestError(f"{path} is empty; answers have {', '.join(COLUMNS)}")


def _value(text: str) -> float | str | None:
    try:
        number = float(text)
    except ValueError:
        return text or None
    return number if math.isfinite(number) else None
