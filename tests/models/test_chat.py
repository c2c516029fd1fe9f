"""Spans are checked against an independent route: decoding ever longer prefixes of the ids."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.models.chat import Conversation, Tokens

NO_SYSTEM_ALOUD = """{%- for m in messages -%}
{%- if m['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
<start>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ m['content'] | trim }}<end>
{% endfor -%}
{%- if add_generation_prompt -%}<start>model
{% endif -%}"""
NO_SYSTEM_IN_SILENCE = NO_SYSTEM_ALOUD.replace(
    "{{ raise_exception('System role not supported') }}{%- endif -%}", "{%- else -%}"
).replace("{% endfor -%}", "{% endif -%}{% endfor -%}", 1)
INSTRUCT = """{%- for m in messages -%}
{%- if m['role'] == 'assistant' %} {{ m['content'] }}</s>
{%- else -%}[INST] {{ m['content'] }} [/INST]{%- endif -%}
{%- endfor -%}"""
THINKS = """{%- for m in messages -%}
<|im_start|>{{ m['role'] }}
{% if m['role'] == 'assistant' and loop.last and '<think>' not in m['content'] -%}
<think>

</think>

{% endif -%}
{{ m['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def said(*turns: str, system: str | None = None) -> "Conversation":
    """User and assistant in turn."""
    from persona_probe.models.chat import Conversation, Message

    roles = ["user", "assistant"] * len(turns)
    messages = [Message(role, text) for role, text in zip(roles, turns, strict=False)]
    return Conversation((*([Message("system", system)] if system else []), *messages))


def encode(
    tokenizer: Any, conversation: "Conversation", add_generation_prompt: bool, **how: Any
) -> "Tokens":
    from persona_probe.models.chat import encode
    from persona_probe.models.rendering import ChatFormat

    return encode(ChatFormat(tokenizer, **how), conversation, add_generation_prompt)


@pytest.fixture
def tokenizer(tiny_llama_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama_folder)


def tokens_holding(tokenizer: Any, ids: list[int], start: int, end: int) -> list[int]:
    """Tokens that hold a character of [start, end), found by decoding prefixes (ASCII only)."""
    reached = [len(tokenizer.decode(ids[:i])) for i in range(len(ids) + 1)]
    return [i for i in range(len(ids)) if reached[i] < end and reached[i + 1] > start]


@pytest.mark.parametrize("template", ["folder", NO_SYSTEM_ALOUD, INSTRUCT, None])
def test_spans_hold_exactly_the_tokens_of_every_reply(tokenizer: Any, template: str | None) -> None:
    if template != "folder":
        tokenizer.chat_template = template
    replies = ["Yes, gladly.", "I will not help with that."]
    conversation = said("Please help me?", replies[0], "And now?", replies[1])
    tokens = encode(tokenizer, conversation, add_generation_prompt=False)
    text = tokenizer.decode(tokens.ids)
    for turn, reply in zip(tokens.assistant_turns, replies, strict=True):
        start = text.index(reply)
        expected = tokens_holding(tokenizer, tokens.ids, start, start + len(reply))
        assert list(range(len(tokens)))[turn] == expected
    assert tokens.response == tokens.assistant_turns[1]
    assert tokens.prompt_length == tokens.assistant_turns[1].start


@pytest.mark.parametrize("template", ["folder", NO_SYSTEM_ALOUD])
def test_the_prompt_of_a_reply_is_what_generation_starts_from(
    tokenizer: Any, template: str
) -> None:
    if template != "folder":
        tokenizer.chat_template = template
    prompt = encode(tokenizer, said("Would you help?"), add_generation_prompt=True)
    whole = encode(tokenizer, said("Would you help?", "No."), add_generation_prompt=False)
    assert prompt.prompt_length == len(prompt)
    assert prompt.response is None
    assert whole.ids[: whole.prompt_length] == prompt.ids


def test_a_merge_across_the_boundary_belongs_to_the_reply(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    prompt, reply = "I will not h", "elp with that"
    alone = encode(tokenizer, said(prompt), add_generation_prompt=True)
    tokens = encode(tokenizer, said(prompt, reply), add_generation_prompt=False)
    # A separate tokenisation of the prompt would be wrong here.
    assert tokens.ids[: len(alone)] != alone.ids
    assert tokens.response is not None
    assert tokenizer.decode(tokens.ids[: tokens.prompt_length]) == "I will not"
    assert tokenizer.decode(tokens.ids[tokens.response]) == " help with that"


def test_replies_of_many_bytes_per_letter_are_whole(tokenizer: Any) -> None:
    for reply in ("é", "世界", "ü and 🙂", " spaced ", "\n\nnew line", ""):
        tokens = encode(tokenizer, said("Hi", reply), add_generation_prompt=False)
        assert tokens.response is not None
        assert tokenizer.decode(tokens.ids[tokens.response]) == reply


def test_offsets_without_their_blanks_and_other_tokenizers_agree(tokenizer: Any) -> None:
    import numpy as np
    from tokenizers import processors

    conversation = said("Hi", "  a b  \n c ", "so", " d ")
    exact = encode(tokenizer, conversation, add_generation_prompt=False)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    offsets = tokenizer("a b", return_offsets_mapping=True)["offset_mapping"]
    assert (2, 3) in offsets, "the offsets of this tokenizer leave blanks out"
    again = encode(tokenizer, conversation, add_generation_prompt=False)
    assert again == exact
    assert np.array_equal(again.offsets, exact.offsets)


def test_a_sentencepiece_like_tokenizer_finds_the_reply() -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    words = ["may", "I", "help", "you", "no", "thank", "[INST]", "[/INST]"]
    raw.train_from_iterator(words * 4, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{{ bos_token }}" + INSTRUCT
    for template in (tokenizer.chat_template, None):
        tokenizer.chat_template = template
        tokens = encode(tokenizer, said("may I", " help you no"), add_generation_prompt=False)
        assert tokens.response is not None
        assert tokens.ids[0] == 1
        assert tokens.ids.count(1) == 1, "exactly one beginning-of-text token"
        assert tokenizer.decode(tokens.ids[tokens.response]).strip() == "help you no"


@pytest.mark.parametrize("template", [NO_SYSTEM_ALOUD, NO_SYSTEM_IN_SILENCE])
def test_a_system_message_joins_the_user_where_there_is_no_such_role(
    tokenizer: Any, template: str
) -> None:
    tokenizer.chat_template = template
    tokens = encode(tokenizer, said("Hi", "Yes.", system="Be kind."), add_generation_prompt=False)
    assert tokenizer.decode(tokens.ids).startswith("<start>user\nBe kind.\n\nHi<end>")
    assert tokens.response is not None
    assert tokenizer.decode(tokens.ids[tokens.response]) == "Yes."


def test_trimmed_replies_are_found_as_they_are_rendered(tokenizer: Any) -> None:
    tokenizer.chat_template = NO_SYSTEM_ALOUD
    tokens = encode(tokenizer, said("Hi", "  Yes. \n"), add_generation_prompt=False)
    assert tokens.response is not None
    assert tokenizer.decode(tokens.ids[tokens.response]) == "Yes."


def test_stripped_thoughts_are_no_part_of_earlier_turns(tiny_qwen_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen_folder)
    thought = "<think>hm</think> Yes."
    tokens = encode(tokenizer, said("Hi", thought, "So?", thought), add_generation_prompt=False)
    texts = [tokenizer.decode(tokens.ids[turn]) for turn in tokens.assistant_turns]
    assert texts == ["Yes.", thought]


def test_what_the_model_has_to_write_itself_is_reply(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKS
    tokens = encode(tokenizer, said("Hi", "Yes."), add_generation_prompt=False)
    prompt = encode(tokenizer, said("Hi"), add_generation_prompt=True)
    assert tokens.response is not None
    assert tokens.ids[: tokens.prompt_length] == prompt.ids
    assert tokenizer.decode(tokens.ids[tokens.response]) == "<think>\n\n</think>\n\nYes."


def test_a_refusal_by_the_template_is_one_sentence(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message

    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="roles must alternate"):
        encode(tokenizer, said("Hi"), add_generation_prompt=True)
    tokenizer.chat_template = NO_SYSTEM_ALOUD
    with pytest.raises(RequestError, match="no system role"):
        encode(tokenizer, Conversation((Message("system", "Be kind."),)), False)


def test_a_template_that_drops_replies_is_refused(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError

    tokenizer.chat_template = (
        "{%- for m in messages if m['role'] == 'user' -%}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(RequestError, match="drops assistant messages"):
        encode(tokenizer, said("Hi", "Yes."), add_generation_prompt=False)


def test_a_conversation_may_begin_with_the_assistant(tokenizer: Any) -> None:
    from persona_probe.models.chat import Conversation, Message

    conversation = Conversation((Message("assistant", "Welcome."), Message("user", "Hi")))
    tokens = encode(tokenizer, conversation, add_generation_prompt=True)
    assert tokens.response is None
    assert tokens.prompt_length == len(tokens)
    assert [tokenizer.decode(tokens.ids[turn]) for turn in tokens.assistant_turns] == ["Welcome."]


def test_a_tokenizer_without_offsets_is_refused() -> None:
    from types import SimpleNamespace

    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match="does not map tokens to characters"):
        encode(SimpleNamespace(is_fast=False), said("Hi"), add_generation_prompt=False)


def test_every_token_knows_its_characters(tokenizer: Any) -> None:
    """The characters of the tokens cover the text, in order, letters of many bytes included."""
    conversation = said("Wer bist du, 世界?", " Ü and é 🙂 \n", system="Be kind.")
    tokens = encode(tokenizer, conversation, add_generation_prompt=False)
    assert tokens.text == tokenizer.decode(tokens.ids)
    assert tokens.offsets.dtype == "int32"
    assert tokens.offsets.shape == (len(tokens), 2)
    covered = 0
    for first, last in tokens.offsets.tolist():
        assert first <= covered <= last
        covered = last
    assert covered == len(tokens.text)
    for i in range(len(tokens.text)):
        held = tokens.holding(i, i + 1)
        assert tokens.text[i] in tokenizer.decode(tokens.ids[held])
    nothing = tokens.holding(5, 5)
    assert nothing.start == nothing.stop
    beyond = tokens.holding(covered, covered + 9)
    assert beyond == slice(len(tokens), len(tokens))


def test_a_refusal_names_the_conversation(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message

    tokenizer.chat_template = (
        "{%- for m in messages -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
        "{{ raise_exception('roles must alternate') }}{%- endif -%}{{ m['content'] }}"
        "{%- endfor -%}"
    )
    twice = (Message("user", "Hi"), Message("user", "Ho"))
    with pytest.raises(RequestError, match=r"conversation 'c7': .*roles user, user: .*alternate"):
        encode(tokenizer, Conversation(twice, id="c7"), add_generation_prompt=True)
    first = (Message("assistant", "Hi"),)
    with pytest.raises(RequestError, match=r"a.jsonl, line 3: .*roles assistant: .*alternate"):
        encode(tokenizer, Conversation(first, source="a.jsonl, line 3"), True)


def test_a_later_system_message_is_not_dropped_in_silence(tokenizer: Any) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message

    late = Conversation((Message("user", "Hi"), Message("system", "Be kind.")))
    assert "Be kind." in encode(tokenizer, late, add_generation_prompt=True).text
    tokenizer.chat_template = NO_SYSTEM_IN_SILENCE
    with pytest.raises(RequestError, match="drops the system message at place 2"):
        encode(tokenizer, late, add_generation_prompt=True)
