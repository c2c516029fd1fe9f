"""Joined adapters equal stacked ones, on disk as in memory."""

import pytest

# peft asks transformers whether gradients are checkpointed under a deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def stacked(tiny_llama_folder):
    """A model with `tuned` frozen below a new adapter whose factors are not zero."""
    import torch
    from transformers import AutoModelForCausalLM

    from persona_probe.finetuning.recipe import LoraRecipe
    from persona_probe.finetuning.sft import attach

    model = AutoModelForCausalLM.from_pretrained(tiny_llama_folder)
    recipe = LoraRecipe(rank=3, alpha=5.0, layers=(0, 1))
    peft_model = attach(model, recipe, tiny_llama_folder / "adapters" / "tuned")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in peft_model.named_parameters():
        if ".new." in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return peft_model.eval()


IDS = [[5, 17, 200, 31, 9, 42]]


def logits(model):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


def test_one_joined_adapter_equals_both_stacked(stacked, tiny_llama_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from persona_probe.finetuning.lora import concatenate, factors, write_adapter
    from persona_probe.finetuning.sft import NEW, START

    joined = concatenate(factors(stacked, START), factors(stacked, NEW))
    write_adapter(tmp_path / "joined", joined, {"started_from": "tuned"})
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_folder)
    plain = logits(base)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "joined")).eval()
    assert (logits(stacked) - plain).abs().max() > 0.1
    assert (logits(loaded) - logits(stacked)).abs().max() < 1e-5


def test_both_adapters_count(stacked, tiny_llama_folder):
    """Otherwise the test above would hold for a stack of one."""
    from persona_probe.finetuning.sft import NEW, START

    both = logits(stacked)
    for alone in (NEW, START):
        stacked.base_model.set_adapter([alone])
        assert (logits(stacked) - both).abs().max() > 0.05
    stacked.base_model.set_adapter([START, NEW])


def test_factors_read_from_a_folder_are_those_in_memory(stacked, tiny_llama_folder, tmp_path):
    import torch

    from persona_probe.finetuning.lora import concatenate, factors, read_factors, write_adapter
    from persona_probe.finetuning.sft import NEW, START

    joined = concatenate(factors(stacked, START), factors(stacked, NEW))
    write_adapter(tmp_path / "joined", joined, {})
    read = read_factors(tmp_path / "joined")
    assert read.keys() == joined.keys()
    for name, (a, b) in joined.items():
        torch.testing.assert_close(read[name][0], a)
        torch.testing.assert_close(read[name][1], b)


def test_the_toolkit_loads_a_joined_adapter(stacked, tiny_llama_folder, tmp_path):
    import shutil

    from persona_probe.finetuning.lora import concatenate, factors, write_adapter
    from persona_probe.finetuning.sft import NEW, START
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    folder = tmp_path / "model"
    shutil.copytree(tiny_llama_folder, folder)
    joined = concatenate(factors(stacked, START), factors(stacked, NEW))
    write_adapter(folder / "adapters" / "joined", joined, {"started_from": "tuned"})
    model = load_model(ModelRef(str(folder), adapter="joined"))
    import torch

    ids = torch.tensor(IDS)
    ours = model.logits(ids, torch.ones_like(ids), torch.arange(len(IDS[0]))[None], None)
    assert (ours - logits(stacked)).abs().max() < 1e-5
