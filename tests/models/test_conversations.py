import json
from pathlib import Path

import pytest

HI = {"role": "user", "content": "Hi"}


def test_messages_keep_what_is_known_about_them(tmp_path: Path) -> None:
    from persona_probe.models.chat import Message, read_conversations

    file = tmp_path / "a.jsonl"
    rows = [
        {"messages": [HI], "id": 3, "label": "kind", "family": "greeting", "tier": "T0"},
        {"messages": [HI, {"role": "assistant", "content": "A line\u2028and another"}]},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text(f"{lines[0]}\n\n{lines[1]}\n", encoding="utf-8")
    first, second = read_conversations(file)
    assert (first.id, first.label, first.family) == ("3", "kind", "greeting")
    assert first.metadata == {"tier": "T0"}
    assert first.messages == (Message("user", "Hi"),)
    assert first.reply is None
    assert (second.id, second.reply) == ("line-3", "A line\u2028and another")


def test_plain_text_is_one_prompt_per_line(tmp_path: Path) -> None:
    from persona_probe.models.chat import read_conversations

    file = tmp_path / "prompts.txt"
    file.write_text("Who are you?\n\n  Help me.  \n", encoding="utf-8")
    found = read_conversations(file)
    assert [(c.id, c.messages[0].content) for c in found] == [
        ("line-1", "Who are you?"),
        ("line-3", "Help me."),
    ]


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
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import read_conversations

    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": [HI]}) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(RequestError, match=said) as caught:
        read_conversations(file)
    assert str(file) in str(caught.value)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import read_conversations

    with pytest.raises(RequestError, match="no such file"):
        read_conversations(tmp_path / "missing.jsonl")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(RequestError, match="holds no conversations"):
        read_conversations(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(RequestError, match="not UTF-8"):
        read_conversations(tmp_path / "latin.txt")
    with pytest.raises(RequestError, match=r"\.jsonl"):
        read_conversations(tmp_path / "array.json")


def test_a_conversation_needs_a_message() -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation

    with pytest.raises(RequestError, match="no messages"):
        Conversation((), id="x")
