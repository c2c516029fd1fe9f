"""Positions on real tokenizers: what is read is decoded again and compared with what was meant."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.activations.positions import Group
    from persona_probe.models.chat import Conversation, Tokens

ANSWERED = ("Please help me?", "I will not.", "And now?", "Yes, gladly. First gather.")


@pytest.fixture(scope="module")
def tokenizer(tiny_llama_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama_folder)


def said(*turns: str, **about: Any) -> "Conversation":
    from persona_probe.models.chat import Conversation, Message

    roles = ["user", "assistant"] * len(turns)
    messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))
    return Conversation(messages, **about)


def encoded(tokenizer: Any, conversation: "Conversation") -> "Tokens":
    from persona_probe.models.chat import encode
    from persona_probe.models.rendering import ChatFormat

    return encode(ChatFormat(tokenizer), conversation, conversation.reply is None)


def rows(tokenizer: Any, conversation: "Conversation", position: str) -> list[str]:
    """What each row's tokens say; `|` between parts of one row."""
    from persona_probe.activations.positions import groups_of

    tokens = encoded(tokenizer, conversation)
    groups = groups_of(tokens, conversation, position, "c7")
    assert all(part.start < part.stop for group in groups for part in group)
    return ["|".join(tokenizer.decode(tokens.ids[part]) for part in group) for group in groups]


def taken(groups: list["Group"]) -> list[list[int]]:
    return [[i for part in group for i in range(part.start, part.stop)] for group in groups]


def test_the_pooled_positions_are_one_row_each() -> None:
    from persona_probe.activations.positions import position_named
    from persona_probe.models.chat import Tokens

    answered = Tokens(list(range(9)), 5, slice(5, 8), (slice(5, 8),))
    names = ("last_prompt_token", "response_mean", "prompt_mean", "response_first:2")
    found = {name: position_named(name)(answered, said("Hi", "Yes.")) for name in names}
    assert found == {
        "last_prompt_token": [(slice(4, 5),)],
        "response_mean": [(slice(5, 8),)],
        "prompt_mean": [(slice(0, 5),)],
        "response_first:2": [(slice(5, 7),)],
    }


def test_prompt_and_response_share_the_conversation(tokenizer: Any) -> None:
    conversation = said(*ANSWERED)
    assert rows(tokenizer, conversation, "response_mean") == [ANSWERED[-1]]
    (prompt,) = rows(tokenizer, conversation, "prompt_mean")
    assert prompt.endswith("And now?<|im_end|>\n<|im_start|>assistant\n")
    (last,) = rows(tokenizer, conversation, "last_prompt_token")
    assert prompt.endswith(last)


def test_every_assistant_turn_is_a_row(tokenizer: Any) -> None:
    assert rows(tokenizer, said(*ANSWERED), "assistant_turns") == [ANSWERED[1], ANSWERED[3]]
    silent = said("Hi", "", "So?", "Yes.")
    assert rows(tokenizer, silent, "assistant_turns") == ["Yes."], "nothing said, nothing read"


def test_single_tokens_are_rows(tokenizer: Any) -> None:
    from persona_probe.activations.positions import groups_of

    conversation = said(*ANSWERED)
    tokens = encoded(tokenizer, conversation)
    every = taken(groups_of(tokens, conversation, "all_tokens", "c7"))
    assert every == [[i] for i in range(len(tokens))]
    reply = rows(tokenizer, conversation, "response_tokens")
    assert len(reply) > 5
    assert "".join(reply) == ANSWERED[-1]


def test_the_first_tokens_of_the_reply(tokenizer: Any) -> None:
    tokens = rows(tokenizer, said(*ANSWERED), "response_tokens")
    for k in (1, 3, len(tokens), 99):
        assert rows(tokenizer, said(*ANSWERED), f"response_first:{k}") == ["".join(tokens[:k])]


@pytest.mark.parametrize("k", ["0", "-1", "2.5", "", "k", "٣"])
def test_the_number_of_first_tokens_is_checked(k: str) -> None:
    from persona_probe.activations.positions import position_named
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=f"response_first:{k}.*whole number"):
        position_named(f"response_first:{k}")


def test_a_span_takes_the_tokens_it_cuts_whole(tokenizer: Any) -> None:
    start = ANSWERED[0].index("lp me")
    spans = {"help": {"message": 0, "start": start, "end": start + 4}}
    conversation = said(*ANSWERED, metadata={"spans": spans})
    (row,) = rows(tokenizer, conversation, "span:help")
    assert "lp m" in row
    assert row != "lp m", "this tokenizer has no token that begins with l and ends with m"
    assert len(row) <= len(" help me")


def test_a_span_of_several_pieces_is_one_row(tokenizer: Any) -> None:
    spans = {
        "both": [{"message": 3, "start": 0, "end": 3}, {"message": 1, "start": 0, "end": 6}],
        "twice": [{"message": 1, "start": 0, "end": 6}, {"message": 1, "start": 2, "end": 11}],
    }
    conversation = said(*ANSWERED, metadata={"spans": spans})
    assert rows(tokenizer, conversation, "span:both") == ["I will|Yes"], "in the text's order"
    assert rows(tokenizer, conversation, "span:twice") == ["I will not."], "no token counts twice"


def test_a_pattern_takes_every_token_it_touches(tokenizer: Any) -> None:
    conversation = said("Kind Kinder", "a kind promise and an unkind one")
    assert rows(tokenizer, conversation, "regex:promise") == [" promise"]
    found = rows(tokenizer, conversation, "regex:(?i)kind")[0].split("|")
    assert len(found) == 4
    assert all("kind" in row.lower() for row in found)
    colons = said("a:b", "no")
    assert rows(tokenizer, colons, "regex:a:b") == ["a:b"], "only the first colon is syntax"


def test_a_pattern_reads_letters_of_many_bytes(tokenizer: Any) -> None:
    from persona_probe.activations.positions import groups_of

    conversation = said("Hi", "Wie schön 世界 ist 🙂")
    for letter, n_bytes in (("ö", 2), ("界", 3), ("🙂", 4)):
        position = f"regex:{letter}"
        assert rows(tokenizer, conversation, position) == [letter]
        (group,) = taken(groups_of(encoded(tokenizer, conversation), conversation, position, "c7"))
        assert len(group) == n_bytes, "this tokenizer has a token for every byte"


def test_matches_of_nothing_are_no_rows(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError

    for pattern in ("x*y*(?!)", "(?=Hi)", "zebra"):
        with pytest.raises(RequestError, match=r"c7 has no tokens at position.*change the pattern"):
            rows(tokenizer, said("Hi", "Yes."), f"regex:{pattern}")


def test_a_wrong_pattern_is_named() -> None:
    from persona_probe.activations.positions import position_named
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=r"'\(kind' is not a regular expression .*position 0"):
        position_named("regex:(kind")
    for name in ("regex:", "span:"):
        with pytest.raises(RequestError, match="lacks"):
            position_named(name)


@pytest.mark.parametrize("name", ["response", "response_first", "response_mean:3", ":", ""])
def test_an_unknown_position_lists_the_choices(name: str) -> None:
    from persona_probe.activations.positions import position_named
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=r"unknown position .*last_prompt_token, .*span:NAME"):
        position_named(name)


def test_every_position_finds_nothing_in_nothing() -> None:
    from persona_probe.activations.positions import POSITIONS, groups_of
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Tokens

    for position in (*POSITIONS, "response_first:3", "span:x", "regex:x"):
        with pytest.raises(RequestError, match=f"c7 has no tokens at position '{position}'"):
            groups_of(Tokens([], 0, None, ()), said("Hi"), position, "c7")


def test_a_missing_span_says_which_there_are(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError

    spans = {"claim": {"message": 0, "start": 0, "end": 2}}
    with pytest.raises(RequestError, match="'span:clam'; its metadata names claim"):
        rows(tokenizer, said("Hi", metadata={"spans": spans}), "span:clam")


def test_a_prompt_alone_has_no_reply_to_read(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError

    for position in ("response_mean", "response_tokens", "response_first:3", "assistant_turns"):
        with pytest.raises(RequestError, match="give it a reply"):
            rows(tokenizer, said("Hi"), position)
