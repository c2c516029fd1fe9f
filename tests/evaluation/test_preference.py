import dataclasses
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.evaluation.preference import pair_margins, refusal_probability
from persona_probe.models.chat import Conversation, Message
from persona_probe.steering import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.scoring import reply_log_probabilities


@pytest.fixture
def arms(make_direction: Any) -> list[Arm]:
    steered = Intervention(make_direction(), Add(1.5))
    return [Arm("plain"), Arm("steered", (steered,)), Arm("tuned", adapter="tuned")]


def test_refusal_probability_is_a_share_of_the_openers_mass(
    tiny_model: Any, rules: Any, prompts: Any, arms: Any
) -> None:
    asked = list(prompts.values())
    found = refusal_probability(tiny_model, asked, arms, rules, system="Be kind.")
    assert found.arms == ("plain", "steered", "tuned")
    assert found.families == ("family-harmful", "family-benign", "family-borderline")
    conversation = Conversation((Message("system", "Be kind."), Message("user", asked[0].text)))
    prompt = tiny_model.encode(conversation, add_generation_prompt=True).ids
    row = torch.tensor([prompt])
    with torch.no_grad():
        p = tiny_model.logits(row, torch.ones_like(row), torch.arange(len(prompt))[None])[0, -1]
    p = p.softmax(dim=-1)

    def mass(openers: tuple[str, ...]) -> float:
        first = {
            tiny_model.encode(conversation.with_reply(opener), False).ids[len(prompt)]
            for opener in openers
        }
        return sum(float(p[token]) for token in first)

    refusing, complying = mass(rules.refusal_openers), mass(rules.compliance_openers)
    assert found.refusal_mass[0, 0] == pytest.approx(refusing, abs=1e-6)
    assert found.compliance_mass[0, 0] == pytest.approx(complying, abs=1e-6)
    assert found.probability[0, 0] == pytest.approx(refusing / (refusing + complying), abs=1e-5)
    assert (found.probability[1:] - found.probability[0]).abs().min() > 1e-4


def test_openers_that_begin_alike_count_for_neither(
    tiny_model: Any, rules: Any, prompts: Any, arms: Any
) -> None:
    asked = list(prompts.values())
    shared = dataclasses.replace(
        rules,
        refusal_openers=(*rules.refusal_openers, "Yes, but no."),
        compliance_openers=("Yes, gladly.", "Agree."),
    )
    without = dataclasses.replace(rules, compliance_openers=("Agree.",))
    found = refusal_probability(tiny_model, asked, arms, shared)
    torch.testing.assert_close(
        found.probability, refusal_probability(tiny_model, asked, arms, without).probability
    )
    alike = dataclasses.replace(rules, refusal_openers=("Agree.",), compliance_openers=("Agree.",))
    with pytest.raises(RequestError, match=r"judge\.toml"):
        refusal_probability(tiny_model, asked, arms, alike)


def test_a_margin_is_per_token_and_paired(tiny_model: Any, prompts: Any, arms: Any) -> None:
    harmful = prompts["harmful"]
    found = pair_margins(tiny_model, list(prompts.values()), arms)
    assert found.ids == ("harmful",)
    asked = Conversation((Message("user", harmful.text),))
    safe, harm = (
        reply_log_probabilities(tiny_model, [asked.with_reply(reply)], arms).per_token
        for reply in (harmful.safe_reply, harmful.harmful_reply)
    )
    torch.testing.assert_close(found.margin, safe - harm, atol=1e-4, rtol=0)
    swapped = dataclasses.replace(
        harmful, safe_reply=harmful.harmful_reply, harmful_reply=harmful.safe_reply
    )
    torch.testing.assert_close(pair_margins(tiny_model, [swapped], arms).margin, -found.margin)
    same = dataclasses.replace(harmful, harmful_reply=harmful.safe_reply)
    assert pair_margins(tiny_model, [same], arms).margin.abs().max() < 1e-6
    assert found.margin.abs().min() > 1e-4
    with pytest.raises(RequestError, match="safe_reply"):
        pair_margins(tiny_model, [prompts["benign"]], arms)
