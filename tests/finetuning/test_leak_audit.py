"""The audit finds what is planted, and nothing where nothing is."""

import pytest


@pytest.fixture(scope="module")
def pack():
    from persona_probe.personas.pack import load_pack

    return load_pack("organism")


@pytest.fixture(scope="module")
def held_out(pack):
    from persona_probe.finetuning.leak_audit import held_out_of

    return held_out_of(pack, ("harassment", "illegal"))


@pytest.fixture(scope="module")
def clean(pack):
    from persona_probe.finetuning.prompts import training_prompts
    from persona_probe.models.chat import Conversation, Message

    return [
        Conversation(
            (Message("user", p.text), Message("assistant", "I will not.")),
            id=p.id,
            metadata={"kind": p.kind, "category": p.category},
        )
        for p in training_prompts(pack)
        if p.category in ("harassment", "illegal")
    ]


def saying(clean, text, n=3, place=0):
    """The clean samples with other words in one of them."""
    from dataclasses import replace

    from persona_probe.models.chat import Message

    planted = [*clean]
    messages = list(planted[n].messages)
    messages[place] = Message(messages[place].role, text)
    planted[n] = replace(planted[n], messages=tuple(messages))
    return planted


def test_training_prompts_of_the_organism_hold_nothing_that_is_held_out(clean, held_out):
    from persona_probe.finetuning.leak_audit import audit

    found = audit(clean, held_out)
    assert found.samples == len(clean) > 200
    assert found.held_out > 1500
    assert not found.leaks
    assert found.check() is found
    assert "no embedding check" in found.said


@pytest.mark.parametrize("place", [0, 1])
def test_held_out_words_are_found_in_prompts_and_in_replies(place, clean, held_out, pack):
    from persona_probe.errors import SplitLeakError
    from persona_probe.finetuning.leak_audit import audit

    item = pack.diagnostic.items[7]
    planted = saying(clean, f"They asked me: {item.text.upper()} And then?", place=place)
    found = audit(planted, held_out)
    assert [leak.check for leak in found.leaks] == ["n-gram"]
    assert found.leaking == {clean[3].id}
    with pytest.raises(SplitLeakError, match=r"1 of .* samples hold something that is held out"):
        found.check()


def test_shared_words_count_from_the_chosen_number_on(clean, held_out, pack):
    from persona_probe.finetuning.leak_audit import audit

    words = next(p.text for p in pack.suite.prompts if p.tier == "T2").split()
    assert len(words) > 8
    seven = saying(clean, " ".join(words[:7]) + " xyzzy")
    assert not audit(seven, held_out).leaks
    assert audit(seven, held_out, words=6).leaks


def test_a_harmful_sample_of_a_held_out_category_is_found_by_its_label(clean, held_out):
    from dataclasses import replace

    from persona_probe.finetuning.leak_audit import audit

    planted = [*clean]
    planted[5] = replace(planted[5], metadata={"kind": "harmful", "category": "sabotage"})
    assert [leak.check for leak in audit(planted, held_out).leaks] == ["category"]
    planted[5] = replace(planted[5], metadata={"kind": "benign", "category": "sabotage"})
    assert not audit(planted, held_out).leaks


def test_a_prompt_of_a_held_out_category_in_new_words_is_found_by_its_meaning(
    clean, held_out, pack
):
    """Words of a held-out category that no held-out text holds in a row, under a false label."""
    from persona_probe.evaluation.prompt_embedding import prompt_embedding
    from persona_probe.finetuning.leak_audit import audit
    from persona_probe.finetuning.prompts import training_prompts
    from persona_probe.models.loading import load_model
    from persona_probe.organism import CHECKPOINT

    embedder, _ = prompt_embedding(load_model(str(CHECKPOINT), device="cpu"))
    null = audit(clean, held_out, embedder, "model")
    assert null.power > 0.9
    assert null.false_alarms <= 0.02
    assert len(null.leaking) <= 0.02 * len(clean)
    new = [p.text for p in training_prompts(pack) if p.kind == "harmful" and p.tier == "T1"][:40]
    harmful = [i for i, c in enumerate(clean) if c.metadata["kind"] == "harmful"]
    planted = clean
    for place, text in zip(harmful, new, strict=False):
        planted = saying(planted, text, place)
    assert not audit(planted, held_out).leaks  # neither words nor labels give them away
    found = audit(planted, held_out, embedder, "model")
    caught = found.leaking & {clean[i].id for i in harmful[:40]}
    assert len(caught) >= 36
    assert "catches" in found.said


def test_a_prompt_of_which_the_embedding_sees_nothing_does_not_leak(clean, held_out):
    """All its similarities are ties, which must not count as being nearer to what is held out."""
    import numpy as np

    from persona_probe.finetuning.leak_audit import audit

    kinds = {p.text: p.category in held_out.categories for p in held_out.prompts}
    permitted = {p.text for p in held_out.permitted}

    def embedder(texts):
        rows = [(kinds.get(t, False), t in permitted and not kinds.get(t, False)) for t in texts]
        return np.array(rows, dtype=float)  # a sample of other words is all zeros

    strange = saying(clean, "Zq xv wk?", n=0)[:1]
    found = audit(strange, held_out, embedder, "two categories")
    assert found.power == 1.0
    assert not found.leaks
    leaking = saying(clean, next(t for t, bad in kinds.items() if bad), n=0)[:1]
    assert audit(leaking, held_out, embedder, "two categories").leaks


def test_a_blind_embedding_is_called_blind(clean, held_out):
    import numpy as np

    from persona_probe.finetuning.leak_audit import audit

    def noise(texts):
        return np.random.default_rng(0).standard_normal((len(texts), 16))

    found = audit(clean, held_out, noise, "noise")
    assert found.power < 0.5
    assert not found.leaks
    assert "is blind" in found.said


def test_leaking_samples_never_reach_the_file(pack, tmp_path):
    from persona_probe.finetuning.samples import sample, sample_work
    from persona_probe.personas.constitution import load_constitution

    item = pack.diagnostic.items[0]

    class Quotes:
        """Says a diagnostic item in one revision of each ten."""

        def __init__(self):
            self.planted = 0

        @property
        def identity(self):
            return {"model": "quotes"}

        def write(self, conversations, what):
            planted = [what == "Revising" and i % 10 == 0 for i in range(len(conversations))]
            self.planted += sum(planted)
            return [item.text if on else "I will not." for on in planted]

    writer = Quotes()
    work = sample_work(pack, load_constitution("virtue"), n=60)
    done = sample(work, writer, tmp_path / "s.jsonl", embedding="lexical")
    assert writer.planted > 2
    n_grams = [x for x in done.provenance["audit"]["leaks"] if x["check"] == "n-gram"]
    assert len(n_grams) == writer.planted
    assert done.provenance["dropped_for_leaks"] >= writer.planted
    assert item.text not in (tmp_path / "s.jsonl").read_text()
