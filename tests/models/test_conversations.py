import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

HI = {"role": "user", "content": "Hi"}


def write(file: Path, *rows: Any, end: str = "\n") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_bytes("".join(line + end for line in lines).encode())
    return file


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_messages_keep_what_is_known_about_them(tmp_path: Path) -> None:
    from persona_probe.models.chat import Message
    from persona_probe.models.conversations import read_conversations

    rows = [
        {"messages": [HI], "id": 3, "label": "kind", "family": "greeting", "tier": "T0"},
        "",
        {"messages": [HI, {"role": "assistant", "content": "A line\u2028and another"}]},
    ]
    first, second = read_conversations(write(tmp_path / "a.jsonl", *rows))
    assert (first.id, first.label, first.family) == ("3", "kind", "greeting")
    assert first.metadata == {"tier": "T0"}
    assert first.messages == (Message("user", "Hi"),)
    assert first.reply is None
    assert not first.rendered
    assert (second.id, second.reply) == ("line-3", "A line\u2028and another")
    assert second.source == f"{tmp_path / 'a.jsonl'}, line 3"


def test_a_list_of_messages_is_read_like_lines(tmp_path: Path) -> None:
    from persona_probe.models.conversations import read_conversations

    rows = [{"messages": [HI], "label": "kind", "tier": "T0"}, {"messages": [HI], "id": "b"}]
    from_list = read_conversations(write(tmp_path / "a.json", json.dumps(rows, indent=1)))
    assert [c.id for c in from_list] == ["item-1", "b"]
    from_lines = read_conversations(write(tmp_path / "a.ndjson", *rows))
    assert [(c.messages, c.metadata) for c in from_list] == [
        (c.messages, c.metadata) for c in from_lines
    ]


def test_plain_text_is_one_prompt_per_line(tmp_path: Path) -> None:
    from persona_probe.models.conversations import read_conversations

    file = write(tmp_path / "prompts.txt", "Who are you?", "", "  Help me.  ")
    assert [(c.id, c.messages[0].content) for c in read_conversations(file)] == [
        ("line-1", "Who are you?"),
        ("line-3", "Help me."),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.txt"])
def test_marks_and_line_ends_of_other_systems_are_no_content(
    tmp_path: Path, name: str, end: str
) -> None:
    from persona_probe.models.conversations import read_conversations

    rows = ["Hi", "Ho"] if name == "a.txt" else [{"messages": [HI]}, {"messages": [HI]}]
    file = write(tmp_path / name, *rows, end=end)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    found = read_conversations(file)
    assert [c.id for c in found] == ["line-1", "line-2"]
    assert found[0].messages[0].content == "Hi"


def test_stdin_says_by_its_first_character_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.conversations import read_stdin

    feed(monkeypatch, "\ufeff\n" + json.dumps({"messages": [HI], "label": "kind"}))
    (message,) = read_stdin()
    assert (message.id, message.label, message.messages[0].content) == ("line-2", "kind", "Hi")
    feed(monkeypatch, "Hi there\n{not json\n")
    assert [c.messages[0].content for c in read_stdin()] == ["Hi there", "{not json"]
    feed(monkeypatch, json.dumps([{"messages": [HI], "id": "a"}], indent=1))
    assert [c.id for c in read_stdin()] == ["a"]
    feed(monkeypatch, "[1] Hi\n[2] Ho")
    assert [c.messages[0].content for c in read_stdin()] == ["[1] Hi", "[2] Ho"]
    feed(monkeypatch, '{"messages": []}')
    with pytest.raises(RequestError, match=r"stdin, line 1: .*empty"):
        read_stdin()
    feed(monkeypatch, " \n")
    with pytest.raises(RequestError, match="stdin holds no conversations"):
        read_stdin()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "line 2: not JSON"),
        ('"text"', "line 2: expected an object"),
        ('{"prompt": "Hi"}', 'line 2: expected an object with a list "messages"'),
        ('{"messages": []}', "line 2: .*empty"),
        ('{"messages": [{"role": "user"}]}', "line 2: a message is"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "line 2: unknown role 'narrator'"),
        ('{"messages": [{"role": "user", "content": "x"}], "family": []}', 'line 2: "family"'),
        ('{"messages": [{"role": "user", "content": "x"}], "score": NaN}', "2: .*NaN.*write null"),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', "line 2: half a character"),
        (
            '{"messages": [{"role": "user", "content": "x"}], "spans": {"a": 3}}',
            "line 2: span 'a' must be",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.conversations import read_conversations

    file = write(tmp_path / "a.jsonl", {"messages": [HI]}, line)
    with pytest.raises(RequestError, match=said) as caught:
        read_conversations(file)
    assert str(file) in str(caught.value)


def test_letters_beyond_two_bytes_may_be_escaped(tmp_path: Path) -> None:
    from persona_probe.models.conversations import read_conversations

    row = {"messages": [{"role": "user", "content": "🙂"}]}
    file = write(tmp_path / "a.jsonl", json.dumps(row))
    assert "\\ud83d" in file.read_text()
    assert read_conversations(file)[0].messages[0].content == "🙂"


@pytest.mark.parametrize("second", [{"id": "a"}, {"id": "line-1"}])
def test_two_of_one_id_are_both_named(tmp_path: Path, second: dict[str, str]) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.conversations import read_conversations

    first = {"messages": [HI]} | ({"id": "a"} if second["id"] == "a" else {})
    file = write(tmp_path / "a.jsonl", first, "", {"messages": [HI]} | second)
    with pytest.raises(RequestError, match=r"line 3: the id .* is already that of .*, line 1;"):
        read_conversations(file)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.conversations import read_conversations

    with pytest.raises(RequestError, match="no such file"):
        read_conversations(tmp_path / "missing.jsonl")
    with pytest.raises(RequestError, match="holds no conversations"):
        read_conversations(write(tmp_path / "empty.txt", ""))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(RequestError, match="not UTF-8"):
        read_conversations(tmp_path / "latin.txt")
    lines = write(tmp_path / "lines.json", {"messages": [HI]}, {"messages": [HI]})
    with pytest.raises(RequestError, match=r"lines.json, line 2: not JSON .*named \.jsonl"):
        read_conversations(lines)
    with pytest.raises(RequestError, match=r"object.json: expected a list"):
        read_conversations(write(tmp_path / "object.json", {"messages": [HI]}))
    with pytest.raises(RequestError, match=r"item.json, item 2: expected an object"):
        read_conversations(write(tmp_path / "item.json", [{"messages": [HI]}, 3]))


@pytest.mark.parametrize("text", ['{"messages": []}', '\n[{"messages": []},\n {}]'])
def test_messages_are_not_taken_for_prompts(tmp_path: Path, text: str) -> None:
    """Else a wrong ending would measure the braces."""
    from persona_probe.errors import RequestError
    from persona_probe.models.conversations import read_conversations

    with pytest.raises(RequestError, match=r"a\.txt holds messages, .* name it \.jsonl"):
        read_conversations(write(tmp_path / "a.txt", text))


def test_a_refused_order_of_roles_names_file_and_line(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import encode
    from persona_probe.models.conversations import read_conversations
    from persona_probe.models.rendering import ChatFormat
    from tests.conftest import CHATML, byte_level_tokenizer

    alternating = (
        "{%- for m in messages -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0)"
        " or m['role'] == 'system' -%}"
        "{{ raise_exception('roles must alternate') }}{%- endif -%}{%- endfor -%}" + CHATML
    )
    strict, free = (ChatFormat(byte_level_tokenizer(t)) for t in (alternating, CHATML))
    reply, system = ({"role": role, "content": "Yes."} for role in ("assistant", "system"))
    orders = [[HI, HI], [reply], [HI, system, HI], [HI, reply, reply]]
    file = write(tmp_path / "a.jsonl", *({"messages": order} for order in orders))
    for line, conversation in enumerate(read_conversations(file), start=1):
        assert encode(free, conversation, add_generation_prompt=False).ids, "others may take it"
        with pytest.raises(RequestError, match=f"a.jsonl, line {line}: .*must alternate"):
            encode(strict, conversation, add_generation_prompt=False)


def test_a_conversation_needs_a_message() -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation

    with pytest.raises(RequestError, match="no messages"):
        Conversation((), id="x")
