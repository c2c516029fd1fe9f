"""Requests put in other ways reach a model through the same rendering as any other."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from persona_probe.activations.contrast import request
from persona_probe.evaluation.variants import Variant, variants
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.robustness import Robustness

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("english")


@pytest.fixture(scope="module")
def by_name(pack: Pack) -> dict[str, Variant]:
    return {variant.name: variant for variant in variants(pack)}


def test_a_pack_without_such_words_has_no_variants(pack: Pack) -> None:
    assert variants(replace(pack, robustness=Robustness())) == []


def test_each_variant_changes_what_it_says_it_changes(
    pack: Pack, by_name: dict[str, Variant]
) -> None:
    for prompt in pack.suite.of(kind="harmful", tiers=["T2"]).prompts:
        plain = request(prompt, "Be brief.")
        asked = {name: variant.ask(prompt, "Be brief.") for name, variant in by_name.items()}
        for conversation in asked.values():
            assert conversation.messages[0] == plain.messages[0]
            assert (conversation.id, conversation.family) == (prompt.id, prompt.family)
            roles = [message.role for message in conversation.messages]
            assert roles[1:] == ["user", "assistant"] * (len(roles) // 2 - 1) + ["user"]
        reworded = asked["paraphrase"].messages[1].content
        assert reworded == pack.robustness.paraphrases[prompt.id]
        turns = asked["several turns"].messages
        assert turns[-1] == plain.messages[-1]
        assert tuple(m.content for m in turns[1:-1]) in pack.robustness.lead_ins
        for name in ("role line", "given opener", "story frame"):
            (_, pressed) = asked[name].messages
            assert prompt.text in pressed.content
            assert len(pressed.content) > len(prompt.text) + 20
    assert "system" not in {m.role for m in by_name["several turns"].ask(prompt, "").messages}


def test_prompts_share_out_the_wordings_and_keep_theirs(
    pack: Pack, by_name: dict[str, Variant]
) -> None:
    prompts = pack.suite.of(kind="harmful", tiers=["T1"]).prompts
    for name, wordings in (
        ("several turns", 8),
        ("role line", 4),
        ("given opener", 3),
        ("story frame", 3),
    ):
        ask = by_name[name].ask
        met = [str(ask(p, "").messages[:-1]) + ask(p, "").messages[-1].content for p in prompts]
        assert met == [
            str(ask(p, "").messages[:-1]) + ask(p, "").messages[-1].content for p in prompts
        ]
        frames = {text.replace(p.text, "") for text, p in zip(met, prompts, strict=True)}
        assert len(frames) == wordings


def test_a_paraphrase_is_asked_of_prompts_that_have_one_only(
    pack: Pack, by_name: dict[str, Variant]
) -> None:
    trained, untrained = (pack.suite.of(kind="harmful", tiers=[t]).prompts[0] for t in ("T0", "T1"))
    assert not by_name["paraphrase"].applies_to(trained)
    assert by_name["paraphrase"].applies_to(untrained)
    assert by_name["role line"].applies_to(trained)


def test_several_turns_are_rendered_by_the_models_own_chat_template(
    tiny_model: "ResidualModel", pack: Pack, by_name: dict[str, Variant]
) -> None:
    prompt = pack.suite.of(kind="harmful", tiers=["T1"]).prompts[0]
    conversation = by_name["several turns"].ask(prompt, "Be brief.")
    tokens = tiny_model.encode(conversation, add_generation_prompt=True)
    assert tokens.text.count("<|im_start|>") == len(conversation.messages) + 1
    assert tokens.text.endswith(f"{prompt.text}<|im_end|>\n<|im_start|>assistant\n")
    assert len(tokens.assistant_turns) == len(conversation.messages) // 2 - 1
