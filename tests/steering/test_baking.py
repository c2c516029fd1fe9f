import json
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add
from persona_probe.steering.baking import bake
from persona_probe.steering.steer import Intervention, steer

IDS = torch.randint(3, 300, (3, 11), generator=torch.Generator().manual_seed(7))


def plain_logits(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits of transformers alone: no hooks, nothing of this package."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


def hooked_logits(
    folder: Path, interventions: list[Intervention], adapter: str | None = None
) -> torch.Tensor:
    model = load_model(ModelRef(str(folder), adapter=adapter))
    positions = torch.arange(IDS.shape[1]).expand_as(IDS)
    with steer(model, interventions):
        return model.logits(IDS, torch.ones_like(IDS), positions)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("adapter", [None, "tuned"])
def test_plain_transformers_serves_the_steered_model(
    layer: int, adapter: str | None, tiny_folders: Path, make_direction: Any, tmp_path: Path
) -> None:
    direction, out = make_direction(layer=layer), tmp_path / "baked"
    baked = bake(str(tiny_folders), direction, Add(0.8), out, adapter)
    expected = hooked_logits(tiny_folders, [Intervention(direction, Add(0.8), "both")], adapter)
    found = plain_logits(out)
    unsteered = hooked_logits(tiny_folders, [], adapter)
    assert (expected - unsteered).abs().max() > 0.05
    assert torch.allclose(found, expected, atol=2e-5)
    assert baked.difference < 1e-5
    assert baked.effect > 0.01
    record = json.loads((out / "persona_probe.json").read_text())
    assert (record["layer"], record["adapter"], record["settings"]["strength"]) == (
        layer,
        adapter,
        0.8,
    )
    assert record["how"] == baked.how


def test_the_tokenizer_and_its_template_come_along(
    tiny_folders: Path, make_direction: Any, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    bake(str(tiny_folders), make_direction(), Add(1.0), tmp_path / "b")
    before, after = (AutoTokenizer.from_pretrained(f) for f in (tiny_folders, tmp_path / "b"))
    assert before("Tell the truth.")["input_ids"] == after("Tell the truth.")["input_ids"]
    assert before.chat_template == after.chat_template
    two, one = (load_model(ModelRef(str(f))) for f in (tiny_folders, tmp_path / "b"))
    assert one.end_ids == two.end_ids


def test_a_qwen_tokenizer_stays_one_although_the_model_is_saved_as_a_llama(
    tiny_qwen_folder: Path, make_direction: Any, tmp_path: Path
) -> None:
    import json as plain_json

    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2TokenizerFast

    folder = tmp_path / "qwen"
    AutoModelForCausalLM.from_pretrained(tiny_qwen_folder).save_pretrained(folder)
    generic = AutoTokenizer.from_pretrained(tiny_qwen_folder)
    parts = plain_json.loads(generic.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in parts["merges"]]
    own = Qwen2TokenizerFast(vocab=parts["vocab"], merges=merges, eos_token="<|im_end|>")
    own.chat_template = generic.chat_template
    own.save_pretrained(folder)
    bake(str(folder), make_direction(), Add(1.0), tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").architectures == ["LlamaForCausalLM"]
    text = "Please help me write 1234567890 kind  letters.\n\nYes!"
    before, after = (AutoTokenizer.from_pretrained(f) for f in (folder, tmp_path / "out"))
    assert before(text)["input_ids"] == after(text)["input_ids"]
    assert len(before(text)["input_ids"]) > 10


def test_a_baked_folder_can_be_baked_again(
    tiny_qwen_folder: Path, make_direction: Any, tmp_path: Path
) -> None:
    first, second = make_direction(layer=0, seed=1), make_direction(layer=2, seed=2)
    bake(str(tiny_qwen_folder), first, Add(0.5), tmp_path / "one")
    baked = bake(str(tmp_path / "one"), second, Add(0.5), tmp_path / "two")
    both = [Intervention(d, Add(0.5), "both") for d in (first, second)]
    assert torch.allclose(
        plain_logits(tmp_path / "two"), hooked_logits(tiny_qwen_folder, both), atol=2e-5
    )
    assert baked.how == "added to the bias of model.layers.2.mlp.down_proj"


def ablating_hooks(network: Any, unit: torch.Tensor, writers: list[str]) -> None:
    """The reference: whatever these modules return loses its component along `unit`."""

    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output - (output @ unit)[..., None] * unit

    for name, module in network.named_modules():
        if any(name.endswith(writer) for writer in writers):
            module.register_forward_hook(hook)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("adapter", [None, "tuned"])
def test_an_ablated_direction_is_never_written(
    adapter: str | None, tiny_folders: Path, make_direction: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    direction, out = make_direction(layer=1), tmp_path / "baked"
    baked = bake(str(tiny_folders), direction, Ablate(), out, adapter)
    network = AutoModelForCausalLM.from_pretrained(tiny_folders, dtype=torch.float32)
    with torch.no_grad():
        if adapter is not None:
            adapters = tiny_folders / "adapters" / adapter
            network = PeftModel.from_pretrained(network, adapters).merge_and_unload()
        before = network(input_ids=IDS).logits
        writers = ["embed_tokens", "o_proj", "down_proj"]
        if network.config.model_type == "gpt2":
            writers = ["wte", "wpe", "attn.c_proj", "mlp.c_proj"]
        ablating_hooks(network, direction.unit, writers)
        expected = network(input_ids=IDS).logits
    assert (expected - before).abs().max() > 0.05
    assert torch.allclose(plain_logits(out), expected, atol=2e-5)
    assert baked.difference < 1e-5

    model = load_model(ModelRef(str(out)))
    seen: list[torch.Tensor] = []
    with model.hooks([(site, seen.append) for site in model.sites]):
        model.logits(IDS, torch.ones_like(IDS), torch.arange(11).expand_as(IDS))
    for resid in seen:
        assert ((resid @ direction.unit).abs() / resid.norm(dim=-1)).max() < 1e-5
    assert json.loads((out / "persona_probe.json").read_text())["layer"] is None


def test_half_precision_stays_and_the_merge_is_rounded_once(
    tiny_llama_folder: Path, make_direction: Any, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    half = tmp_path / "half"
    network = AutoModelForCausalLM.from_pretrained(tiny_llama_folder, dtype=torch.bfloat16)
    network.save_pretrained(half)
    AutoTokenizer.from_pretrained(tiny_llama_folder).save_pretrained(half)
    direction = make_direction(layer=1)
    adapter = str(tiny_llama_folder / "adapters" / "tuned")
    baked = bake(str(half), direction, Add(0.8), tmp_path / "out", adapter)
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert baked.dtype == "bfloat16"
    assert 0 < baked.difference < 0.05 * baked.effect + 0.02


def family_folder(kind: str, folder: Path, **changes: Any) -> Path:
    """A tiny random model of another family."""
    import transformers

    from tests.conftest import CHATML, DECODER, byte_level_tokenizer

    tokenizer = byte_level_tokenizer(CHATML)
    shape = dict(DECODER, vocab_size=len(tokenizer), **changes)
    if kind == "GPTNeoX":
        shape.pop("num_key_value_heads")
    elif kind != "Mistral":
        shape["head_dim"] = 8
    torch.manual_seed(1)
    network = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**shape)
    )
    for name, weight in network.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.15)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Mistral", "GPTNeoX"])
def test_other_families_take_a_constant_too(kind: str, make_direction: Any, tmp_path: Path) -> None:
    changes = {"sliding_window": None} if kind == "Mistral" else {}
    folder = family_folder(kind, tmp_path / kind, **changes)
    direction = make_direction(layer=1)
    bake(str(folder), direction, Add(0.8), tmp_path / "out")
    expected = hooked_logits(folder, [Intervention(direction, Add(0.8), "both")])
    assert (expected - plain_logits(folder)).abs().max() > 0.02
    assert torch.allclose(plain_logits(tmp_path / "out"), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["Gemma", "Qwen3"])
def test_other_families_lose_a_direction_too(
    kind: str, make_direction: Any, tmp_path: Path
) -> None:
    folder = family_folder(kind, tmp_path / kind)
    baked = bake(str(folder), make_direction(layer=1), Ablate(), tmp_path / "out")
    assert baked.difference < 1e-5 < 0.01 < baked.effect


@pytest.mark.parametrize(
    ("kind", "operation", "changes", "words"),
    [
        ("Gemma", Add(1.0), {}, "the MLP of gemma has no bias"),
        ("Qwen3", Add(1.0), {}, "the MLP of qwen3 has no bias"),
        ("Gemma2", Add(1.0), {}, "gemma2 normalises what its blocks write"),
        ("Gemma2", Ablate(), {}, "gemma2 normalises what its blocks write"),
        ("Mistral", Add(1.0), {"sliding_window": 8}, "sliding-window attention"),
    ],
)
def test_what_an_architecture_cannot_hold_is_refused_with_the_reason(
    kind: str,
    operation: Any,
    changes: dict[str, Any],
    words: str,
    make_direction: Any,
    tmp_path: Path,
) -> None:
    folder = family_folder(kind, tmp_path / kind, **changes)
    with pytest.raises(RequestError, match=words):
        bake(str(folder), make_direction(), operation, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [kind]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "response"}, "weights act at every position, so the schedule 'response'"),
        ({"operation": Ablate(1.0)}, "only an ablation to 0"),
        ({"operation": Ablate({Site(1): 2.0})}, "only an ablation to 0"),
        ({"adapter": "none-such"}, "no adapter 'none-such'"),
        ({"model": "./nowhere"}, "no such folder"),
    ],
)
def test_what_weights_cannot_do_is_refused(
    options: dict[str, Any],
    words: str,
    tiny_llama_folder: Path,
    make_direction: Any,
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {
        "model": str(tiny_llama_folder),
        "direction": make_direction(),
        "operation": Add(1.0),
        "out": tmp_path / "out",
        **options,
    }
    with pytest.raises(RequestError, match=words):
        bake(**given)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_is_left_of_a_failure(
    tiny_llama_folder: Path, make_direction: Any, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(RequestError, match="full is there already"):
        bake(str(tiny_llama_folder), make_direction(), Add(1.0), tmp_path / "full")
    with pytest.raises(SiteMismatchError, match="16 dimensions"):
        bake(str(tiny_llama_folder), make_direction(d_model=16), Add(1.0), tmp_path / "o")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine"]
