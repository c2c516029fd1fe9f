"""A finetune as a folder: whole or not at all, resumed after a kill, refused where it must be."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def plan(tiny_llama_folder, talks):
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.models.ref import ModelRef

    recipe = LoraRecipe(epochs=2, batch_size=4, learning_rate=1e-2)
    ref = ModelRef(str(tiny_llama_folder), adapter="tuned")
    return Finetune(ref, tuple(talks), recipe)


@pytest.fixture
def cpu():
    from persona_probe.finetuning.recipe import Run

    return Run(device="cpu")


def test_the_folder_is_an_ordinary_adapter_with_its_history(plan, cpu, tmp_path):
    from peft import PeftModel

    from persona_probe.files import read_json, read_jsonl
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.folder import read_network

    done = run_finetune(plan, tmp_path / "after", cpu)
    assert [p.name for p in tmp_path.iterdir()] == ["after"]  # nothing unfinished is left
    told = read_json(tmp_path / "after" / "provenance.json")
    assert told == json.loads(json.dumps(done.provenance))
    assert told["started_from"] == "tuned"
    assert told["recipe"]["epochs"] == 2
    assert told["outcome"]["steps"] == 6
    assert {r["step"] for r in read_jsonl(tmp_path / "after" / "log.jsonl")} == set(range(1, 7))
    network, _, _ = read_network(plan.ref.with_adapter(None))
    config = PeftModel.from_pretrained(network, str(tmp_path / "after")).peft_config["default"]
    assert config.r == 6  # rank 4 on top of the 2 of `tuned`
    again = run_finetune(plan, tmp_path / "after", cpu)
    assert again.already
    assert "already" in again.said


def test_another_finetune_does_not_take_the_place_of_one_that_is_there(plan, cpu, tmp_path):
    from dataclasses import replace

    from persona_probe.errors import RequestError
    from persona_probe.finetuning.run import run_finetune

    run_finetune(plan, tmp_path / "after", cpu)
    other = replace(plan, recipe=replace(plan.recipe, seed=1))
    with pytest.raises(RequestError, match=r"another finetune.*recipe differs"):
        run_finetune(other, tmp_path / "after", cpu)


def test_every_weight_can_be_trained_and_written_as_a_model(tiny_qwen_folder, talks, cpu, tmp_path):
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    recipe = LoraRecipe(full=True, epochs=1, batch_size=4, learning_rate=1e-3)
    work = Finetune(ModelRef(str(tiny_qwen_folder), adapter="tuned"), tuple(talks), recipe)
    run_finetune(work, tmp_path / "whole", cpu)
    after = load_model(str(tmp_path / "whole"), device="cpu")
    before = load_model(str(tiny_qwen_folder), device="cpu")
    assert after.model_hash != before.model_hash
    assert after.chat_template_hash == before.chat_template_hash
    assert after.tokenizer_hash == before.tokenizer_hash


CHILD = """
import os, sys, json
from pathlib import Path
from transformers import TrainerCallback
from persona_probe.finetuning import trainer
from persona_probe.finetuning.recipe import LoraRecipe, Run
from persona_probe.finetuning.plan import Finetune
from persona_probe.finetuning.run import run_finetune
from persona_probe.models.conversations import read_conversations
from persona_probe.models.ref import ModelRef

model, data, out, mark, full = sys.argv[1:6]
if mark != "-":
    following = trainer.Following.on_step_end
    def on_step_end(self, args, state, control, **rest):
        following(self, args, state, control, **rest)
        if state.global_step == 8:
            Path(mark).write_text("here")
            import time
            time.sleep(120)
    trainer.Following.on_step_end = on_step_end
recipe = LoraRecipe(epochs=4, batch_size=4, learning_rate=1e-2, full=full == "full")
adapter = None if full == "full" else "tuned"
work = Finetune(ModelRef(model, adapter=adapter), tuple(read_conversations(data)), recipe)
done = run_finetune(work, Path(out), Run(device="cpu", save_every=3))
print(json.dumps({"resumed": done.resumed, "loss": done.provenance["outcome"]["loss"]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_run_killed_with_sigkill_goes_on_to_the_same_weights(
    kind, tiny_llama_folder, talks, tmp_path
):
    from persona_probe.files import read_jsonl, write_jsonl

    rows = [
        {"id": c.id, "messages": [{"role": m.role, "content": m.content} for m in c.messages]}
        for c in talks
    ]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    mark = tmp_path / "mark"

    def start(out, mark_path):
        words = [sys.executable, "-c", CHILD, str(tiny_llama_folder), str(data), str(out)]
        return subprocess.Popen(
            [*words, str(mark_path), kind], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )

    undisturbed = start(tmp_path / "whole", "-")
    killed = start(tmp_path / "killed", mark)
    deadline = time.monotonic() + 200
    while not mark.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert mark.exists()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    unfinished = tmp_path / ".killed.unfinished"
    assert [p.name for p in unfinished.glob("checkpoint-*")] != []
    resumed = start(tmp_path / "killed", "-")
    assert json.loads(resumed.communicate()[0])["resumed"] is True
    assert json.loads(undisturbed.communicate()[0])["resumed"] is False
    name = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    first, second = ((tmp_path / o / name).read_bytes() for o in ("whole", "killed"))
    assert first == second
    logs = [read_jsonl(tmp_path / o / "log.jsonl") for o in ("whole", "killed")]
    assert [(r["step"], r["loss"]) for r in logs[0]] == [(r["step"], r["loss"]) for r in logs[1]]


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    from persona_probe.finetuning.trainer import newest_checkpoint

    for step, state in ((3, '{"global_step": 3}'), (6, '{"global_ste'), (9, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_bad_input_is_one_clear_sentence(plan, cpu, tmp_path, tiny_gpt2_folder):
    from dataclasses import replace

    from persona_probe.errors import RequestError
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.ref import ModelRef

    cases = {
        "no chat template.*--plain": replace(plan, ref=ModelRef(str(tiny_gpt2_folder))),
        "has no adapter 'nobody'": replace(plan, ref=plan.ref.with_adapter("nobody")),
        "made for another base model": replace(
            plan,
            ref=plan.ref.with_adapter(str(tiny_gpt2_folder / "adapters" / "tuned")),
        ),
        "no projections named nowhere": replace(
            plan, recipe=replace(plan.recipe, targets=("nowhere",))
        ),
        "there are no conversations": replace(plan, conversations=()),
    }
    for message, work in cases.items():
        with pytest.raises(RequestError, match=message):
            run_finetune(work, tmp_path / "after", cpu)
        assert not (tmp_path / "after").exists()


def test_an_adapter_of_like_shape_that_was_trained_on_another_model_is_refused(
    plan, cpu, tmp_path, tiny_qwen_folder
):
    """Llama and Qwen have the same projections here, so only the history tells them apart."""
    from dataclasses import replace

    from persona_probe.errors import RequestError
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.ref import ModelRef

    short = replace(plan, recipe=replace(plan.recipe, epochs=1, targets=("v_proj",)))
    elsewhere = replace(short, ref=ModelRef(str(tiny_qwen_folder)))
    run_finetune(elsewhere, tmp_path / "qwens", cpu)
    foreign = replace(short, ref=plan.ref.with_adapter(str(tmp_path / "qwens")))
    with pytest.raises(RequestError, match=r"trained on tiny-qwen \(weights .*this one is tiny-"):
        run_finetune(foreign, tmp_path / "after", cpu)


def test_a_model_without_a_template_trains_on_plain_text(tiny_gpt2_folder, talks, cpu, tmp_path):
    from persona_probe.finetuning.examples import example
    from persona_probe.finetuning.plan import Finetune
    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.run import run_finetune
    from persona_probe.models.folder import read_network
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    ref = ModelRef(str(tiny_gpt2_folder))
    _, tokenizer, _ = read_network(ref)
    marked = example(tokenizer, talks[0], templated=False)
    learnt = [i for i, on in zip(marked.ids, marked.learnt, strict=True) if on]
    assert tokenizer.decode(learnt) == f"{talks[0].reply}<|endoftext|>"
    recipe = LoraRecipe(epochs=1, batch_size=4, targets=("all-linear",))
    work = Finetune(ref, tuple(talks), recipe, templated=False)
    run_finetune(work, tmp_path / "after", cpu)
    model = load_model(ref, device="cpu")
    with model.adapter(str(tmp_path / "after")):
        assert model.active_adapter is not None


def test_families_are_held_out_whole(talks):
    from persona_probe.finetuning.run import hold_out

    learnt, held = hold_out(talks, 0.25)
    assert {c.family for c in held}.isdisjoint({c.family for c in learnt})
    assert len(held) == 3
    assert len(learnt) + len(held) == len(talks)
    assert hold_out(talks, 0.0) == (talks, [])


def test_recipes_come_from_the_models_folder_and_flags_win(tmp_path):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.recipe import (
        DEFAULT,
        LoraRecipe,
        recipe_for,
        recipe_toml,
        sample_method_for,
    )

    assert recipe_for(tmp_path) == recipe_for(None) == DEFAULT
    own = LoraRecipe(rank=3, layers=(0, 2), targets=("q_proj",), dora=True, epochs=5)
    (tmp_path / "finetuning.toml").write_text(recipe_toml(own, "system"))
    assert recipe_for(tmp_path) == own
    assert recipe_for(tmp_path, rank=9, epochs=None, seed=4) == LoraRecipe(
        rank=9, layers=(0, 2), targets=("q_proj",), dora=True, epochs=5, seed=4
    )
    assert sample_method_for(tmp_path) == "system"
    bad = tmp_path / "bad.toml"
    for text, message in (
        ("rnak = 4", "unknown key 'rnak'"),
        ('rank = "four"', "rank must be of type int"),
        ("rank = 0", "rank must be positive"),
        ("rank = [", "not TOML"),
    ):
        bad.write_text(text)
        with pytest.raises(RequestError, match=message):
            recipe_for(None, bad)
