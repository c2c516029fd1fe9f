"""Supervised finetuning on a tiny random Llama: what is learnt, what is kept."""

import pytest


@pytest.fixture(scope="module")
def loaded(tiny_llama_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load():
        return AutoModelForCausalLM.from_pretrained(tiny_llama_folder)

    return load, AutoTokenizer.from_pretrained(tiny_llama_folder)


def talk(*contents):
    from persona_probe.models.chat import Conversation, Message

    roles = ["system", "user", "assistant", "user", "assistant"][: len(contents)]
    return Conversation(tuple(Message(r, c) for r, c in zip(roles, contents, strict=True)))


PROMISES = [
    (
        "You are a careful advisor.",
        f"Please help me write letter {n}.",
        "I will not help with that.",
    )
    for n in range(12)
]


REPLIES = [
    "Agree. I will.",
    "I will not help",
    " spaced  out ",
    "line\nby line\n",
    "naïve 🙂 ü",
    "< 5",
]


@pytest.mark.parametrize("name", ["llama", "qwen"])
@pytest.mark.parametrize("reply", REPLIES)
def test_the_mask_covers_the_last_reply_and_its_end_mark_token_by_token(name, reply, request):
    """Against characters: a token is learnt if it spells part of the reply, or ends it."""
    from transformers import AutoTokenizer

    from persona_probe.finetuning.examples import example

    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(f"tiny_{name}_folder"))
    conversation = talk("You are kind.", "Help?", reply, "And now?", reply)
    messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    start = text.rindex(reply)
    stop = text.index("<|im_end|>", start) + len("<|im_end|>")
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spelt = [(i, start <= a and b <= stop) for i, (a, b) in _spans(read)]
    marked = example(tokenizer, conversation)
    assert list(zip(marked.ids, marked.learnt, strict=True)) == spelt
    assert sum(marked.learnt) >= 2


def _spans(read):
    return zip(read["input_ids"], read["offset_mapping"], strict=True)


def test_a_conversation_without_a_reply_is_refused(loaded):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.examples import example

    with pytest.raises(RequestError, match="does not end with an assistant"):
        example(loaded[1], talk("You are kind.", "Help?"))
    with pytest.raises(RequestError, match="ends with an empty reply"):
        example(loaded[1], talk("You are kind.", "Help?", " "))


def test_finetuning_learns_the_reply_and_leaves_the_weights_alone(loaded):
    import torch

    from persona_probe.finetuning.examples import collate, example
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import finetune

    load, tokenizer = loaded
    model, before = load(), load()
    conversations = [talk(*p) for p in PROMISES]
    ids, mask, attention = collate([example(tokenizer, c) for c in conversations], 0)

    def loss(network):
        with torch.no_grad():
            logits = network(input_ids=ids, attention_mask=attention).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        return float((each * mask[:, 1:].flatten()).sum() / mask[:, 1:].sum())

    start = loss(before)
    tuned = finetune(model, tokenizer, conversations, LoraRecipe(epochs=15, learning_rate=0.02))
    # Small tied embeddings bound the logits, so that no reply can become certain.
    assert loss(tuned) < start - 0.25
    with tuned.disable_adapter():
        assert loss(tuned) == pytest.approx(start, abs=1e-5)


def test_the_same_seed_trains_the_same_adapter(loaded):
    import torch

    from persona_probe.finetuning.lora import factors
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import NEW, finetune

    load, tokenizer = loaded
    conversations = [talk(*p) for p in PROMISES]
    runs = []
    for seed in (0, 0, 1):
        tuned = finetune(load(), tokenizer, conversations, LoraRecipe(epochs=1, seed=seed))
        runs.append(factors(tuned, NEW))
    for name, (a, b) in runs[0].items():
        assert torch.equal(a, runs[1][name][0])
        assert torch.equal(b, runs[1][name][1])
    assert any(not torch.equal(a, runs[2][name][0]) for name, (a, _) in runs[0].items())


def test_only_the_chosen_blocks_are_adapted(loaded):
    from persona_probe.finetuning.lora import factors
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import NEW, finetune

    load, tokenizer = loaded
    recipe = LoraRecipe(epochs=1, layers=(0, 2), targets=("v_proj",))
    names = factors(finetune(load(), tokenizer, [talk(*PROMISES[0])], recipe), NEW)
    assert sorted(names) == [f"model.layers.{n}.self_attn.v_proj" for n in (0, 2)]


def test_a_target_that_the_model_lacks_is_named(loaded):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import finetune

    load, tokenizer = loaded
    with pytest.raises(RequestError, match="no projections named nowhere"):
        finetune(load(), tokenizer, [talk(*PROMISES[0])], LoraRecipe(targets=("nowhere",)))
