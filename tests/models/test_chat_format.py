"""Which template, in which mode, and how both are told apart."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHATML, byte_level_tokenizer

# As in Qwen3: thinking is on unless turned off, and then the empty thought is part of the prompt.
CAN_THINK = CHATML.replace(
    "<|im_start|>assistant\n",
    "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false -%}\n"
    "<think></think>\n{% endif -%}\n",
)


@pytest.fixture
def thinker() -> Any:
    return byte_level_tokenizer(CAN_THINK)


def prompt(tokenizer: Any, **how: Any) -> str:
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    return encode(ChatFormat(tokenizer, **how), Conversation((Message("user", "Hi"),)), True).text


def test_thinking_mode_is_asked_of_the_template(thinker: Any) -> None:
    default, on, off = (prompt(thinker, thinking=mode) for mode in (None, True, False))
    assert default == on
    assert default.endswith("<|im_start|>assistant\n")
    assert off == default + "<think></think>\n"


def test_without_thinking_the_reply_begins_behind_the_empty_thought(thinker: Any) -> None:
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    thinker.chat_template = thinker.chat_template.replace(
        "{{ message['content'] }}",
        "{% if message['role'] == 'assistant' -%}\n<think></think>\n{% endif -%}\n"
        "{{ message['content'] }}",
    )
    answered = Conversation((Message("user", "Hi"), Message("assistant", "Yes.")))
    for mode, expected in ((True, "<think></think>\nYes."), (False, "Yes.")):
        tokens = encode(ChatFormat(thinker, thinking=mode), answered, add_generation_prompt=False)
        assert thinker.decode(tokens.ids[tokens.response]) == expected


def test_plain_text_on_request(thinker: Any) -> None:
    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    conversation = Conversation((Message("user", "Please"), Message("assistant", " help")))
    tokens = encode(ChatFormat(thinker, templated=False), conversation, add_generation_prompt=False)
    assert tokens.text == "Please help"
    assert thinker.decode(tokens.ids[tokens.response]) == " help"
    assert thinker.chat_template == CAN_THINK, "the tokenizer itself is left as it was"


@pytest.mark.parametrize("mode", [None, False])
def test_what_is_rendered_already_is_read_as_it_is(thinker: Any, mode: bool | None) -> None:
    from dataclasses import replace

    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    chat_format = ChatFormat(thinker, thinking=mode)
    answered = Conversation((Message("user", "Hi"), Message("assistant", "No, I will not.")))
    templated = encode(chat_format, answered, add_generation_prompt=False)
    before, _, after = templated.text.partition("No, I will not.")
    assert after == "<|im_end|>\n"
    messages = (Message("user", before), Message("assistant", "No, I will not."))
    rendered = Conversation(messages, rendered=True)
    tokens = encode(chat_format, rendered, add_generation_prompt=False)
    assert tokens.ids == templated.ids[:-2]
    assert tokens.response == templated.response
    assert tokens.prompt_length == templated.prompt_length
    twice = encode(chat_format, replace(rendered, rendered=False), add_generation_prompt=False)
    assert twice.text.count("<|im_start|>user") == 2, "the template would have come twice"


def test_what_is_rendered_already_gets_no_second_beginning() -> None:
    from tokenizers import processors

    from persona_probe.models.chat import Conversation, Message, encode
    from persona_probe.models.rendering import ChatFormat

    tokenizer = byte_level_tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    said = Conversation((Message("user", "<|endoftext|>Hi"),))
    for rendered, beginnings in ((True, 1), (False, 2)):
        conversation = Conversation(said.messages, rendered=rendered)
        ids = encode(ChatFormat(tokenizer), conversation, add_generation_prompt=True).ids
        assert ids.count(0) == beginnings


@pytest.mark.parametrize("mode", [True, False])
def test_a_template_without_thinking_mode_says_so(mode: bool) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.rendering import ChatFormat

    tokenizer = byte_level_tokenizer(CHATML)
    with pytest.raises(RequestError, match=r"chat template of .* has no thinking mode; leave it"):
        ChatFormat(tokenizer, thinking=mode)
    with pytest.raises(RequestError, match=r"plain text.* has no thinking mode"):
        ChatFormat(byte_level_tokenizer(CAN_THINK), templated=False, thinking=mode)


def test_of_several_templates_the_default_is_used(thinker: Any) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.rendering import ChatFormat

    alone = ChatFormat(thinker).template_hash
    thinker.chat_template = {"default": CAN_THINK, "tools": CHATML}
    assert ChatFormat(thinker).template_hash == alone
    assert prompt(thinker, thinking=False).endswith("<think></think>\n")
    thinker.chat_template = {"tools": CHATML, "rag": CHATML}
    with pytest.raises(RequestError, match='rag, tools and none is called "default"'):
        prompt(thinker)


def test_the_template_hash_tells_templates_apart(thinker: Any) -> None:
    from persona_probe.models.rendering import ChatFormat

    hashes = {ChatFormat(byte_level_tokenizer(t)).template_hash for t in (CHATML, CAN_THINK)}
    assert len(hashes) == 2
    assert ChatFormat(byte_level_tokenizer(None)).template_hash == "none"
    assert ChatFormat(thinker, templated=False).template_hash == "none"


def test_the_tokenizer_hash_is_of_the_tokenizer_alone(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from persona_probe.models.rendering import tokenizer_hash

    tokenizer = byte_level_tokenizer(CHATML)
    before = tokenizer_hash(tokenizer)
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.truncation, "the call has left its mark"
    assert tokenizer_hash(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path)) == before
    assert tokenizer_hash(byte_level_tokenizer(None)) == before
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_hash(tokenizer) != before
    assert tokenizer_hash(SimpleNamespace(is_fast=False)) is None


def test_a_loaded_model_records_how_it_is_spoken_to(tiny_llama_folder: Path) -> None:
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.loading import load_model

    plain = load_model(str(tiny_llama_folder), template=False)
    tokens = plain.encode(Conversation((Message("user", "Hi"),)), add_generation_prompt=True)
    assert tokens.text == "Hi"
    about = plain.describe()
    assert about.chat_template_hash == "none"
    assert about.thinking is None
    assert about.tokenizer_hash == plain.tokenizer_hash


def test_a_loaded_model_thinks_as_it_was_asked_to(
    tiny_llama_folder: Path, thinker: Any, tmp_path: Path
) -> None:
    import shutil

    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.loading import load_model

    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "thinker"))
    thinker.save_pretrained(folder)
    model = load_model(str(folder), thinking=False)
    tokens = model.encode(Conversation((Message("user", "Hi"),)), add_generation_prompt=True)
    assert tokens.text.endswith("<think></think>\n")
    assert model.describe().thinking is False
    with pytest.raises(RequestError, match="has no thinking mode"):
        load_model(str(tiny_llama_folder), thinking=True)
