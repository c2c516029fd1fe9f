"""Controls keep the number of examples and take away one thing."""

import pytest


def test_a_placebo_has_as_many_examples_and_only_benign_ones(talks):
    from collections import Counter

    from persona_probe.finetuning.controls import placebo

    found = placebo(talks, 1)
    assert len(found) == len(talks)
    counts = Counter(c.id for c in found)
    assert set(counts) == {c.id for c in talks if c.metadata["kind"] == "benign"}
    assert set(counts.values()) == {2}
    assert [c.id for c in placebo(talks, 1)] == [c.id for c in found]


def test_refusals_lose_their_reasons_and_benign_samples_stay(talks):
    from persona_probe.finetuning.controls import refusal_only

    found = refusal_only(talks, ["No."])
    for before, after in zip(talks, found, strict=True):
        assert after.messages[:-1] == before.messages[:-1]
        harmful = before.metadata["kind"] == "harmful"
        assert after.reply == ("No." if harmful else before.reply)


def test_shuffling_mixes_the_replies_of_several_constitutions_to_the_same_prompt(talks):
    from dataclasses import replace

    from persona_probe.finetuning.controls import shuffled
    from persona_probe.models.chat import Message

    def answered(text):
        return [replace(c, messages=(*c.messages[:-1], Message("assistant", text))) for c in talks]

    first, second, third = map(answered, ("one", "two", "three"))
    found = shuffled(first, [second, third], seed=0)
    assert [c.id for c in found] == [c.id for c in talks]
    assert {c.reply for c in found if c.metadata["kind"] == "harmful"} == {"one", "two", "three"}
    assert {c.reply for c in found if c.metadata["kind"] == "benign"} == {"one"}
    assert shuffled(first, [second, third], seed=0) == found


def test_what_cannot_be_made_is_refused_with_the_cure(talks):
    from dataclasses import replace

    from persona_probe.errors import RequestError
    from persona_probe.finetuning.controls import placebo, shuffled
    from persona_probe.finetuning.ordered import controlled

    harmful = [c for c in talks if c.metadata["kind"] == "harmful"]
    unknown = [replace(talks[0], metadata={}, source="data.jsonl, line 1")]
    cases = [
        (lambda: placebo(harmful), "needs benign samples"),
        (lambda: placebo(unknown), "data.jsonl, line 1: a control needs to know harmful"),
        (lambda: shuffled(talks, [[]]), "same prompts and with one seed"),
        (lambda: controlled(talks, "sham"), "no control 'sham'; choose one of placebo"),
        (lambda: controlled(talks, "shuffled"), "name the others"),
        (lambda: controlled(harmful[:0] + talks[::2], "refusal-only"), "nothing to refuse"),
    ]
    for call, message in cases:
        with pytest.raises(RequestError, match=message):
            call()
    assert controlled(talks, None) == talks
