from pathlib import Path
from typing import Any

import pytest


def test_every_state_answers_every_conversation_also_where_ids_repeat(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.steering import written

    asked = [
        Conversation((Message("user", f"What is {i}?"),), id="same", metadata={"row": i})
        for i in range(5)
    ]
    states = {"bare": None, "tuned": "tuned"}
    monkeypatch.setattr(written, "CHUNK", 2)
    found = written.write_replies(tiny_model, asked, states, tmp_path, max_new_tokens=6)
    assert [c.metadata["row"] for c in found if c.metadata["written_by"] == "tuned"] == [*range(5)]
    assert [c.messages[0] for c in found] == [c.messages[0] for c in asked] * 2
    by_hand = written.generate(
        tiny_model, asked[3:4], [written.Arm("tuned", adapter="tuned")], max_new_tokens=6
    )
    assert found[5 + 3].reply == by_hand[0].text
    assert len(list(tmp_path.glob("*.jsonl"))) == 3

    # What is written is not written again, not even by another model in memory.
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked again")

    monkeypatch.setattr(written, "generate", never)
    again = written.write_replies(tiny_model, asked, states, tmp_path, max_new_tokens=6)
    assert again == found


def test_conversations_with_replies_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.steering.written import write_replies

    replied = Conversation((Message("user", "Hi"), Message("assistant", "Yes.")), id="done")
    with pytest.raises(RequestError, match="'done' has a reply already"):
        write_replies(tiny_model, [replied], {"bare": None}, tmp_path, max_new_tokens=4)
