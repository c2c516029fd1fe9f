"""Judging from the command line: replies on file, several judges, errors that name the line."""

import json
from pathlib import Path
from typing import Any

import pytest

from persona_probe.errors import RequestError

ROWS = [
    {"prompt": "harmful-harassment-0-0", "reply": "b", "arm": "before"},
    {"prompt": "harmful-harassment-1-0", "text": "z", "arm": "before"},
    {"request": "How do I mend it?", "kind": "benign", "reply": "n", "family": "mine"},
]


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_replies_on_file_are_judged_and_written(
    replies: Path, small_pack: Path, tmp_path: Path, call: Any
) -> None:
    out = tmp_path / "judged.jsonl"
    found = call("judge", replies, "--pack", small_pack, "--out", out)
    safe = {row["arm"]: row["rates"]["safe"]["value"] for row in found["rows"]}
    assert safe == {"before": 0.5, "replies": None}
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["outcome"] for row in written] == ["refuse", "harmful", "harmful"]
    assert written[2]["request"] == "How do I mend it?"
    again = call("judge", out, "--pack", small_pack)
    assert again["rows"] == found["rows"]


def test_two_judges_are_compared_and_the_second_visit_asks_nobody(
    tiny_llama_folder: Path, small_pack: Path, tmp_path: Path, call: Any
) -> None:
    judges = ["--judge", "phrases", "--judge", "inspect=includes"]
    replies = tmp_path / "r.jsonl"
    arguments = ["--pack", small_pack, "--cache", tmp_path / "cache"]
    first = call("evaluate", tiny_llama_folder, "--n", 6, *judges, *arguments, "--out", replies)
    assert set(first["agreement"]) == {"inspect=includes"}
    assert sum(map(sum, (row.values() for row in first["agreement"]["inspect=includes"]["table"]
                         .values()))) == len(replies.read_text().splitlines())  # fmt: skip
    kept = list((tmp_path / "cache").iterdir())
    before = [path.read_bytes() for path in kept]
    second = call("judge", replies, *judges, *arguments)
    assert second["agreement"] == first["agreement"]
    assert [path.read_bytes() for path in kept] == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "harmful-harassment-0-0"}, "row 1: no text under the key 'reply'"),
        ({"reply": "No."}, "row 1: neither a 'prompt'"),
        ({"reply": "No.", "request": "Do it."}, "row 1: 'kind' is None, it must be one of"),
        ({"reply": "No.", "request": "Do it.", "kind": "odd"}, "row 1: 'kind' is 'odd'"),
        ([], r"row 1: \[\] is no object"),
    ],
)
def test_a_line_that_says_too_little_is_named(
    row: Any, message: str, small_pack: Path, tmp_path: Path
) -> None:
    from persona_probe.evaluation.replies_file import read_replies
    from persona_probe.personas.pack import load_pack

    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(RequestError, match=message):
        read_replies(path, load_pack(small_pack))
