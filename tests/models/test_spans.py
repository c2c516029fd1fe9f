"""Named pieces of messages, looked up in what the template makes of them."""

from typing import Any

import pytest

from tests.conftest import CHATML, CHATML_STRIPS_THINKING, byte_level_tokenizer

TRIMS = CHATML.replace("message['content'] }}", "message['content'] | trim }}")
NO_SYSTEM = TRIMS.replace(
    "<|im_start|>{{",
    "{%- if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif -%}\n"
    "<|im_start|>{{",
)


def marked(template: str | None, *turns: tuple[str, str], **spans: Any) -> dict[str, list[str]]:
    """The texts of spans in the rendered conversation, by name."""
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    messages = tuple(Message(role, content) for role, content in turns)
    conversation = Conversation(messages, id="c", metadata={"spans": spans})
    chat_format = ChatFormat(byte_level_tokenizer(template))
    tokens = encode(chat_format, conversation, add_generation_prompt=turns[-1][0] == "user")
    return {
        name: [tokens.text[start:end] for start, end in places]
        for name, places in tokens.spans.items()
    }


def at(message: int, start: int, end: int) -> dict[str, int]:
    return {"message": message, "start": start, "end": end}


@pytest.mark.parametrize("template", [CHATML, TRIMS, CHATML_STRIPS_THINKING, NO_SYSTEM, None])
def test_words_that_stand_elsewhere_too_are_told_apart(template: str | None) -> None:
    """`user` and `Hi` occur in the template and in other messages; only one place is meant."""
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    messages = (Message("user", "user"), Message("assistant", "user"), Message("user", "user Hi"))
    spans = {f"s{i}": at(i, 0, 4) for i in range(3)}
    chat_format = ChatFormat(byte_level_tokenizer(template))
    conversation = Conversation(messages, metadata={"spans": spans})
    tokens = encode(chat_format, conversation, add_generation_prompt=True)
    places = [tokens.spans[f"s{i}"][0] for i in range(3)]
    assert [tokens.text[start:end] for start, end in places] == ["user"] * 3
    assert places == sorted(places)
    before = [tokens.text[:start].rpartition("\n")[0][-20:] for start, _ in places]
    if template:
        assert [b.rpartition(">")[2] for b in before] == ["user", "assistant", "user"]
        assert tokens.text[places[2][0] :].startswith("user Hi")


def test_a_trimmed_message_keeps_its_characters_numbers() -> None:
    turns = [("user", "  \n kind words "), ("assistant", " Yes, gladly. ")]
    spans = {"kind": at(0, 4, 8), "blank": at(0, 1, 8), "end": at(0, 9, 15), "yes": at(1, 1, 4)}
    assert marked(TRIMS, *turns, **spans) == {
        "kind": ["kind"],
        "blank": ["kind"],
        "end": ["words"],
        "yes": ["Yes"],
    }
    assert marked(CHATML, *turns, blank=at(0, 1, 8)) == {"blank": [" \n kind"]}


def test_a_system_message_in_front_of_the_user_is_found_there() -> None:
    turns = [("system", " Hi you. "), ("user", "Hi you."), ("assistant", "Hi")]
    spans = {"system": at(0, 1, 3), "user": at(1, 0, 2), "reply": at(2, 0, 2)}
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    conversation = Conversation(tuple(Message(*t) for t in turns), metadata={"spans": spans})
    tokens = encode(ChatFormat(byte_level_tokenizer(NO_SYSTEM)), conversation, False)
    places = {name: place[0][0] for name, place in tokens.spans.items()}
    assert tokens.text[places["system"] :].startswith("Hi you.\n\nHi you.<|im_end|>")
    assert tokens.text[places["user"] :].startswith("Hi you.<|im_end|>")
    assert tokens.text[places["reply"] :].startswith("Hi<|im_end|>")


def test_thoughts_that_a_template_strips_cannot_be_marked() -> None:
    from persona_probe.errors import RequestError

    thought = "<think>hm</think> Yes."
    turns = [("user", "Hi"), ("assistant", thought), ("user", "So?")]
    start = thought.index("Yes")
    found = marked(CHATML_STRIPS_THINKING, *turns, yes=at(1, start, start + 3))
    assert found == {"yes": ["Yes"]}
    for end in (4, start + 3):
        with pytest.raises(RequestError, match="span 'hm' is not in what the chat template makes"):
            marked(CHATML_STRIPS_THINKING, *turns, hm=at(1, 0, end))


def test_words_that_a_template_changes_cannot_be_marked() -> None:
    from persona_probe.errors import RequestError

    shouts = CHATML.replace("message['content'] }}", "message['content'] | upper }}")
    assert marked(shouts, ("user", "HI"), hi=at(0, 0, 2)) == {"hi": ["HI"]}
    with pytest.raises(RequestError, match="conversation 'c': span 'hi' is not in what"):
        marked(shouts, ("user", "Hi"), hi=at(0, 0, 2))


def test_letters_of_many_bytes_count_as_one() -> None:
    assert marked(CHATML, ("user", "é 世界 🙂!"), face=at(0, 5, 6)) == {"face": ["🙂"]}


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        (["x"], '"spans" must be an object'),
        ({"x": [1]}, "span 'x' must be"),
        ({"x": {"message": 0, "start": 0}}, "span 'x' must be"),
        ({"x": at(0, 0, 1) | {"start": True}}, "span 'x' must be"),
        ({"x": at(2, 0, 1)}, "message 2, there are 0 to 0"),
        ({"x": at(-1, 0, 1)}, "message -1, there are 0 to 0"),
        ({"x": at(0, 1, 3)}, "characters 1 to 3 of message 0, which has 2"),
        ({"x": [at(0, 0, 1), at(0, 1, 1)]}, "characters 1 to 1 of message 0"),
    ],
)
def test_a_wrong_span_is_named(spans: Any, said: str) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message

    conversation = Conversation((Message("user", "Hi"),), metadata={"spans": spans})
    with pytest.raises(RequestError, match=said):
        _ = conversation.spans
