"""The loop: what is learnt token by token, packing, accumulation, checkpointing, steering."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def weights(tuned):
    return {n: p.detach().clone() for n, p in tuned.named_parameters() if "lora_" in n}


def trained(folder, talks, recipe, run=None, start=None, **options):
    """The trained factors of the tiny Llama after a run in memory."""
    from persona_probe.finetuning.sft import finetune
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, tokenizer, _ = read_network(ModelRef(str(folder)))
    return weights(finetune(network, tokenizer, talks, recipe, start, run=run, **options))


def gap(first, second):
    assert first.keys() == second.keys()
    return max(float((first[n] - second[n]).abs().max()) for n in first)


def moved(found):
    """B starts at zero, so its size says how far training went."""
    return max(float(p.abs().max()) for n, p in found.items() if "lora_B" in n)


def test_both_kinds_of_batch_learn_the_same_tokens_in_the_same_places(fresh_llama, talks):
    import torch

    from persona_probe.finetuning.examples import example, packed_batch, padded_batch

    _, tokenizer = fresh_llama
    examples = [example(tokenizer, c) for c in talks[:5]]
    padded, packed = padded_batch(examples, 0), packed_batch(examples)
    ending = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for row, conversation in enumerate(talks[:5]):
        targets = padded["labels"][row]
        learnt = targets[targets != -100].tolist()
        assert tokenizer.decode(learnt[:-1]) == conversation.reply
        assert learnt[-1] == ending
        # What predicts the first of them is the last token of the prompt.
        before = int((targets != -100).nonzero()[0])
        assert before == examples[row].prompt_length - 1
        assert tokenizer.decode(padded["input_ids"][row, : before + 1]).endswith("assistant\n")
    assert packed["labels"][0].tolist() == padded["labels"][padded["labels"] != -100].tolist()
    flat = packed["input_ids"][0]
    assert torch.equal(flat[packed["logits_to_keep"] + 1], packed["labels"][0])


@pytest.mark.parametrize("name", ["llama", "qwen", "gpt2"])
def test_packed_conversations_do_not_see_each_other(name, request, talks):
    import torch

    from persona_probe.finetuning.examples import example, packed_batch
    from persona_probe.finetuning.sft import _require_packable
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    folder = request.getfixturevalue(f"tiny_{name}_folder")
    network, tokenizer, _ = read_network(ModelRef(str(folder)))
    templated = tokenizer.chat_template is not None
    examples = [example(tokenizer, c, templated) for c in talks[:3]]
    _require_packable(network, examples)
    # Without positions that begin anew they do, so the check above can fail.
    packed = packed_batch(examples)
    positions = torch.arange(packed["input_ids"].shape[1])[None]
    with torch.no_grad():
        apart = network(input_ids=packed["input_ids"], position_ids=packed["position_ids"]).logits
        joint = network(input_ids=packed["input_ids"], position_ids=positions).logits
    assert (apart - joint).abs().max() > 1e-2


def test_packing_accumulation_and_checkpointing_change_nothing_but_rounding(
    tiny_llama_folder, talks
):
    from persona_probe.finetuning.recipe import LoraRecipe, Run

    recipe = LoraRecipe(epochs=2, batch_size=4, learning_rate=1e-2)
    options = {"device": "cpu", "save_every": 0}
    plain = trained(tiny_llama_folder, talks, recipe, Run(**options))
    assert moved(plain) > 1e-3
    packed = trained(tiny_llama_folder, talks, recipe, Run(packing=True, **options))
    saving = trained(tiny_llama_folder, talks, recipe, Run(gradient_checkpointing=True, **options))
    halves = LoraRecipe(epochs=2, batch_size=2, learning_rate=1e-2)
    summed = trained(tiny_llama_folder, talks, halves, Run(accumulate=2, **options))
    for other in (packed, saving, summed):
        assert gap(plain, other) < 1e-4


@pytest.mark.parametrize("packing", [False, True])
def test_bfloat16_trains_the_same_direction_and_keeps_adapters_in_float32(
    packing, tiny_llama_folder, talks, tmp_path
):
    import torch

    from persona_probe.files import read_json, read_jsonl, read_tensors
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.ref import ModelRef

    recipe = LoraRecipe(epochs=1, batch_size=4, learning_rate=1e-3)
    work = Finetune(ModelRef(str(tiny_llama_folder)), tuple(talks), recipe)
    updates, losses = [], []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        run_finetune(work, out, Run(device="cpu", precision=precision, packing=packing))
        tensors, _ = read_tensors(out / "adapter_model.safetensors")
        assert {t.dtype for t in tensors.values()} == {torch.float32}
        assert read_json(out / "provenance.json")["run"]["precision"] == precision
        learnt = [t.flatten() for name, t in sorted(tensors.items()) if "lora_B" in name]
        updates.append(torch.cat(learnt))
        losses.append([row["loss"] for row in read_jsonl(out / "log.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]  # it did compute in another precision
    assert float(torch.cosine_similarity(updates[0], updates[1], dim=0)) > 0.9


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    from persona_probe.finetuning.trainer import Order

    order, other = Order(20, 3), Order(20, 3)
    first = list(order)
    order.set_epoch(2)
    other.set_epoch(2)
    assert list(order) == list(other) != first
    assert sorted(first) == list(range(20))
    assert list(Order(20, 4)) != first


@pytest.mark.parametrize("switch", [None, "rslora", "dora"])
def test_variants_of_lora_merge_to_what_they_do_unmerged(
    switch, tiny_llama_folder, talks, tmp_path
):
    import torch
    from peft import PeftModel

    from persona_probe.finetuning.lora import save_new
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import NEW, finetune
    from persona_probe.models.folder import read_network
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    network, tokenizer, _ = read_network(ModelRef(str(tiny_llama_folder)))
    recipe = LoraRecipe(epochs=2, learning_rate=2e-2, **({switch: True} if switch else {}))
    tuned = finetune(network, tokenizer, talks, recipe)
    save_new(tuned, NEW, None, tmp_path / "tuned", {"seed": 0})
    ids = torch.tensor([[5, 17, 200, 31, 9, 42]])
    base, _, _ = read_network(ModelRef(str(tiny_llama_folder)))
    with torch.no_grad():
        plain, learnt = base(input_ids=ids).logits, tuned(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "tuned")).eval()
        unmerged = loaded(input_ids=ids).logits
        merged = loaded.merge_and_unload()(input_ids=ids).logits
    assert (learnt - plain).abs().max() > 1e-2
    assert (unmerged - learnt).abs().max() < 1e-5
    assert (merged - learnt).abs().max() < 1e-4
    model = load_model(ModelRef(str(tiny_llama_folder)))
    with model.adapter(str(tmp_path / "tuned")):
        ours = model.logits(ids, torch.ones_like(ids), torch.arange(6)[None])
    assert (ours - learnt).abs().max() < 1e-5
    bare = model.logits(ids, torch.ones_like(ids), torch.arange(6)[None])
    assert (bare - plain).abs().max() < 1e-5


def test_the_scale_of_a_rank_stabilised_adapter_is_read_from_its_folder(
    tiny_llama_folder, tmp_path
):
    import torch

    from persona_probe.finetuning.lora import factors, read_factors
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import NEW, attach
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, _, _ = read_network(ModelRef(str(tiny_llama_folder)))
    tuned = attach(network, LoraRecipe(rank=4, alpha=6.0, rslora=True))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.ones_like(parameter)
    tuned.save_pretrained(tmp_path)
    read = read_factors(tmp_path / NEW)
    for name, (a, b) in factors(tuned, NEW).items():
        torch.testing.assert_close(read[name][0], a)
        torch.testing.assert_close(read[name][1], b)
        assert b.max() == pytest.approx(3.0)


def test_dora_cannot_stand_on_another_adapter(fresh_llama, tiny_llama_folder):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import attach

    with pytest.raises(RequestError, match="merge that adapter into a model folder"):
        attach(fresh_llama[0], LoraRecipe(dora=True), tiny_llama_folder / "adapters" / "tuned")


def test_all_linear_adapts_every_projection_of_the_blocks_and_not_the_readout(tiny_gpt2_folder):
    from persona_probe.finetuning.recipe import ALL_LINEAR, LoraRecipe
    from persona_probe.finetuning.sft import module_names
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, _, _ = read_network(ModelRef(str(tiny_gpt2_folder)))
    names = module_names(network, LoraRecipe(targets=(ALL_LINEAR,), layers=(1,)))
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == [f"transformer.h.1.{part}" for part in parts]


@pytest.fixture
def steered_training(tiny_llama_folder, talks, make_direction):
    """Train in memory under interventions; returns the trained factors."""

    def run(operation=None, schedule="both", packing=False, sites=None, strength=0.0):
        import tempfile
        from pathlib import Path

        from persona_probe.finetuning.examples import example
        from persona_probe.finetuning.recipe import LoraRecipe, Run
        from persona_probe.finetuning.sft import attach, train
        from persona_probe.models.folder import read_network
        from persona_probe.models.loading import view_model
        from persona_probe.models.ref import ModelRef
        from persona_probe.steering.add import Add
        from persona_probe.steering.arm import Intervention

        ref = ModelRef(str(tiny_llama_folder))
        network, tokenizer, _ = read_network(ref)
        view = view_model(network, tokenizer, ref)
        recipe = LoraRecipe(epochs=1, batch_size=4, learning_rate=1e-2)
        tuned = attach(network, recipe)
        meant = operation or Add(strength, "raw")
        steer = Intervention(make_direction(layer=0), meant, schedule, sites)
        examples = [example(tokenizer, c) for c in talks]
        options = Run(device="cpu", save_every=0, packing=packing)
        with tempfile.TemporaryDirectory() as folder:
            train(
                tuned,
                tokenizer,
                examples,
                recipe,
                options,
                Path(folder),
                view=view,
                interventions=[steer],
            )
        return weights(tuned)

    return run


def test_a_direction_added_while_training_changes_what_is_learnt_and_nothing_at_strength_0(
    steered_training, tiny_llama_folder, talks
):
    from persona_probe.finetuning.recipe import LoraRecipe

    recipe = LoraRecipe(epochs=1, batch_size=4, learning_rate=1e-2)
    plain = trained(tiny_llama_folder, talks, recipe)
    assert gap(plain, steered_training(strength=0.0)) == 0.0
    everywhere = steered_training(strength=4.0)
    on_replies = steered_training(strength=4.0, schedule="response")
    assert gap(plain, everywhere) > 1e-3
    assert gap(everywhere, on_replies) > 1e-3


def test_schedules_mean_the_same_packed_and_padded(steered_training):
    padded = steered_training(strength=4.0, schedule="response")
    packed = steered_training(strength=4.0, schedule="response", packing=True)
    assert gap(padded, packed) < 1e-4


def test_a_direction_ablated_while_training_is_nowhere_then_and_there_again_afterwards(
    fresh_llama, tiny_llama_folder, talks, make_direction, tmp_path
):
    from persona_probe.finetuning.examples import example
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.sft import attach, train
    from persona_probe.models.loading import view_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import Site
    from persona_probe.steering.ablate import Ablate
    from persona_probe.steering.arm import Intervention

    network, tokenizer = fresh_llama
    view = view_model(network, tokenizer, ModelRef(str(tiny_llama_folder)))
    direction, seen = make_direction(layer=0), {True: [], False: []}

    def look(module, inputs):
        along = (inputs[0].detach() @ direction.unit).abs().max()
        seen[module.training].append(float(along))

    network.model.norm.register_forward_pre_hook(look)
    steer = Intervention(direction, Ablate(), "both", tuple(Site(layer) for layer in range(3)))
    examples = [example(tokenizer, c) for c in talks]
    recipe = LoraRecipe(epochs=1, batch_size=4)
    tuned = attach(network, recipe)
    run = Run(device="cpu", save_every=0, packing=True)  # padding is not steered
    train(
        tuned,
        tokenizer,
        examples[:8],
        recipe,
        run,
        tmp_path,
        examples[8:],
        view=view,
        interventions=[steer],
    )
    assert len(seen[True]) == 2
    assert max(seen[True]) < 1e-4
    assert min(seen[False]) > 0.1  # evaluations are not steered


def test_stopping_early_keeps_the_best_and_needs_something_held_out(
    tiny_llama_folder, talks, tmp_path
):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.examples import example
    from persona_probe.finetuning.recipe import LoraRecipe, Run
    from persona_probe.finetuning.sft import attach, train
    from persona_probe.models.folder import read_network
    from persona_probe.models.ref import ModelRef

    network, tokenizer, _ = read_network(ModelRef(str(tiny_llama_folder)))
    recipe = LoraRecipe(epochs=30, batch_size=4, learning_rate=0.5)  # it will overshoot
    tuned = attach(network, recipe)
    examples = [example(tokenizer, c) for c in talks]
    run = Run(device="cpu", patience=2)
    with pytest.raises(RequestError, match="held-out"):
        train(tuned, tokenizer, examples[:8], recipe, run, tmp_path / "a")
    done = train(tuned, tokenizer, examples[:8], recipe, run, tmp_path / "b", examples[8:])
    assert done["steps"] < done["planned_steps"]
    from persona_probe.files import read_jsonl

    losses = [r["eval_loss"] for r in read_jsonl(tmp_path / "b" / "log.jsonl") if "eval_loss" in r]
    assert done["best_held_out_loss"] == min(losses) < losses[-1]
