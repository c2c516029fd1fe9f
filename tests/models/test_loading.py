import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from models.conftest import Pair

# Two orders of summation in float32 over widths of 32: a few units in the last place of logits
# around 10. A wrong mask, adapter or position moves them by more than 0.1.
CLOSE = 1e-4


def logits_of(network: Any, row: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return network(input_ids=torch.tensor([row])).logits[0]


def our_logits(model: Any, row: list[int]) -> Any:
    batch = model.pad([row], "right")
    return model.logits(batch.ids, batch.attention_mask, batch.position_ids)[0]


def merged(folder: Path, adapter: str) -> Any:
    """The adapter added to the weights by hand: W + (alpha / rank) B A."""
    import json

    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    place = folder / "adapters" / adapter
    config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    factors = load_file(place / "adapter_model.safetensors")
    for key in [key for key in factors if "lora_A" in key]:
        update = factors[key.replace("lora_A", "lora_B")] @ factors[key]
        update *= config["lora_alpha"] / config["r"]
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        weight = network.get_submodule(name).weight.data
        weight += update.T if config["fan_in_fan_out"] else update
    return network


def test_logits_are_those_of_transformers(pair: "Pair", rows: list[list[int]]) -> None:
    for row in rows:
        difference = our_logits(pair.ours, row) - logits_of(pair.plain, row)
        assert difference.abs().max() <= CLOSE


@pytest.mark.parametrize("adapter", ["tuned", "other"])
def test_an_adapter_that_is_on_equals_merged_weights(
    pair: "Pair", rows: list[list[int]], adapter: str
) -> None:
    expected = logits_of(merged(pair.folder, adapter), rows[0])
    base = our_logits(pair.ours, rows[0])
    assert (expected - base).abs().max() > 0.1, "the adapter changes something"
    with pair.ours.adapter(adapter):
        assert (our_logits(pair.ours, rows[0]) - expected).abs().max() <= CLOSE
    assert our_logits(pair.ours, rows[0]).equal(base)


def test_adapters_nest_and_come_off_after_an_exception(
    tiny_model: Any, rows: list[list[int]]
) -> None:
    base = our_logits(tiny_model, rows[0])

    def nested() -> None:
        with tiny_model.adapter("tuned"):
            tuned = our_logits(tiny_model, rows[0])
            with tiny_model.adapter("other"):
                assert not our_logits(tiny_model, rows[0]).equal(tuned)
                with tiny_model.adapter(None):
                    assert tiny_model.active_adapter is None
                    assert our_logits(tiny_model, rows[0]).equal(base)
            assert tiny_model.active_adapter == "tuned"
            assert our_logits(tiny_model, rows[0]).equal(tuned)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nested()
    assert tiny_model.active_adapter is None
    assert our_logits(tiny_model, rows[0]).equal(base)


def test_a_reference_with_an_adapter_loads_with_it_on(
    tiny_llama_folder: Path, tiny_model: Any, rows: list[list[int]]
) -> None:
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    model = load_model(ModelRef(str(tiny_llama_folder), adapter="tuned"))
    assert model.active_adapter == "tuned"
    assert model.describe().adapter == "tuned"
    with tiny_model.adapter("tuned"):
        assert our_logits(model, rows[0]).equal(our_logits(tiny_model, rows[0]))
    with model.adapter(None):
        assert our_logits(model, rows[0]).equal(our_logits(tiny_model, rows[0]))
    assert model.active_adapter == "tuned"


def copy_adapter(source: Path, target: Path, weights: dict[str, Any], **config: Any) -> Path:
    import json

    from safetensors.torch import save_file

    target.mkdir()
    settings = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    (target / "adapter_config.json").write_text(json.dumps(settings | config), encoding="utf-8")
    save_file(weights, target / "adapter_model.safetensors")
    return target


def test_an_adapter_of_another_base_is_refused_and_leaves_no_trace(
    tiny_llama_folder: Path, tiny_gpt2_folder: Path, tmp_path: Path, rows: list[list[int]]
) -> None:
    from safetensors.torch import load_file

    from persona_probe.errors import RequestError
    from persona_probe.models.loading import load_model

    source = tiny_llama_folder / "adapters" / "tuned"
    good = load_file(source / "adapter_model.safetensors")
    wider = {k: v.repeat(1, 2) if "lora_A" in k else v.repeat(2, 1) for k, v in good.items()}
    shallow = {k: v for k, v in good.items() if ".layers.2." not in k}
    deeper = good | {k.replace(".layers.2.", ".layers.7."): v.clone() for k, v in good.items()}
    wrong = [
        tiny_gpt2_folder / "adapters" / "tuned",
        copy_adapter(source, tmp_path / "wider", wider),
        copy_adapter(source, tmp_path / "shallow", shallow),
        copy_adapter(source, tmp_path / "deeper", deeper),
    ]
    model = load_model(str(tiny_llama_folder))
    base = our_logits(model, rows[0])
    for folder in wrong:
        with pytest.raises(RequestError, match="another base model"), model.adapter(str(folder)):
            pass
        assert our_logits(model, rows[0]).equal(base)
    with model.adapter("tuned"):
        before = our_logits(model, rows[0])
        with pytest.raises(RequestError), model.adapter(str(wrong[1])):
            pass
        assert model.active_adapter == "tuned"
        assert our_logits(model, rows[0]).equal(before)
    assert our_logits(model, rows[0]).equal(base)


def test_what_cannot_be_switched_off_is_refused(
    tiny_llama_folder: Path, tiny_model: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from persona_probe.errors import RequestError

    source = tiny_llama_folder / "adapters" / "tuned"
    good = load_file(source / "adapter_model.safetensors")
    for name, config in {
        "heads": {"modules_to_save": ["lm_head"]},
        "biases": {"bias": "all"},
        "ia3": {"peft_type": "IA3"},
    }.items():
        folder = copy_adapter(source, tmp_path / name, good, **config)
        with pytest.raises(RequestError, match=name), tiny_model.adapter(str(folder)):
            pass


def test_an_adapter_without_weights_or_a_hub_to_get_it_from_is_refused(
    tiny_llama_folder: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.errors import RequestError

    source = tiny_llama_folder / "adapters" / "tuned"
    folder = copy_adapter(source, tmp_path / "hollow", {})
    (folder / "adapter_model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for adapter, said in ((str(folder), "has no adapter_model"), ("a/lora", "the hub gave no")):
        with pytest.raises(RequestError, match=said), tiny_model.adapter(adapter):
            pass


def test_an_architecture_that_transformerlens_does_not_know_is_read_the_same(
    tiny_llama_folder: Path, tiny_model: Any
) -> None:
    from transformers import LlamaForCausalLM

    from persona_probe.models.loading import wrap_model
    from persona_probe.models.plain_hooks import PlainBridge
    from persona_probe.models.site import Site

    class NewForCausalLM(LlamaForCausalLM):
        pass

    network = NewForCausalLM.from_pretrained(tiny_llama_folder)
    model = wrap_model(network, tiny_model.tokenizer, tiny_model.ref)
    assert isinstance(model.bridge, PlainBridge)
    assert model.packs
    batch = model.pad([[5, 17, 200]], "right")
    inputs = (batch.ids, batch.attention_mask, batch.position_ids)
    for adapter in (None, "tuned"):
        with model.adapter(adapter), tiny_model.adapter(adapter):
            assert model.logits(*inputs).equal(tiny_model.logits(*inputs))
            with (
                model.hooks([(Site(1), lambda resid: resid * 2)]),
                tiny_model.hooks([(Site(1), lambda resid: resid * 2)]),
            ):
                doubled = model.logits(*inputs)
                assert doubled.equal(tiny_model.logits(*inputs))
            assert not doubled.equal(model.logits(*inputs))


def test_a_model_without_a_list_of_blocks_is_named(
    tiny_llama_folder: Path, tiny_model: Any
) -> None:
    from transformers import LlamaForCausalLM

    from persona_probe.errors import RequestError
    from persona_probe.models.loading import wrap_model

    class OddForCausalLM(LlamaForCausalLM):
        pass

    network = OddForCausalLM.from_pretrained(tiny_llama_folder)
    network.config.num_hidden_layers = 7
    with pytest.raises(RequestError, match="OddForCausalLM keeps no list of its 7 blocks"):
        wrap_model(network, tiny_model.tokenizer, tiny_model.ref)


def test_an_adapter_on_embeddings_and_head_is_switched_too(
    tiny_qwen_folder: Path, tmp_path: Path, rows: list[list[int]]
) -> None:
    """These modules are wrapped themselves, unlike those inside the blocks."""
    import torch
    from peft import LoraConfig
    from peft.functional import get_peft_model_state_dict, inject_adapter_in_model
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from persona_probe.models.loading import load_model

    network = AutoModelForCausalLM.from_pretrained(tiny_qwen_folder).eval()
    config = LoraConfig(r=2, target_modules=["lm_head", "embed_tokens"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        inject_adapter_in_model(config, network, "default")
    state = get_peft_model_state_dict(network, adapter_name="default", save_embedding_layers=False)
    config.save_pretrained(tmp_path)
    save_file(
        {f"base_model.model.{k}": v for k, v in state.items()},
        tmp_path / "adapter_model.safetensors",
    )
    model = load_model(str(tiny_qwen_folder))
    base = our_logits(model, rows[0])
    with model.adapter(str(tmp_path)):
        ours = our_logits(model, rows[0])
    assert (ours - base).abs().max() > 1e-3
    assert (ours - logits_of(network, rows[0])).abs().max() <= CLOSE
    assert our_logits(model, rows[0]).equal(base)


def test_a_folder_is_loaded_without_a_network(
    tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load_model(ModelRef(str(tiny_llama_folder), adapter="tuned")).n_layers == 3


def test_wrong_requests_are_one_sentence(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (str(tmp_path / "missing"), {}, "no such folder"),
        ("owner/never-heard-of", {}, "the hub gave no such model"),
        (str(tmp_path), {}, "not a model that can be loaded"),
        (ModelRef(str(tiny_llama_folder), adapter="tund"), {}, "other, tuned"),
        (str(tiny_llama_folder), {"device": "abacus"}, "cannot use device 'abacus'"),
        (str(tiny_llama_folder), {"dtype": "int7"}, "float32, bfloat16, float16"),
    ]
    for ref, options, said in wrong:
        with pytest.raises(RequestError, match=said) as caught:
            load_model(ref, **options)
        assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_sentence(tiny_llama_folder: Path, tmp_path: Path) -> None:
    import shutil

    from persona_probe.errors import RequestError
    from persona_probe.models.loading import load_model

    shutil.copytree(tiny_llama_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RequestError, match="not a model that can be loaded"):
        load_model(str(tmp_path / "cut"))


def test_our_tokenizer_is_not_the_one_the_bridge_changes(tiny_llama_folder: Path) -> None:
    from transformers import AutoTokenizer

    from persona_probe.models.loading import load_model

    fresh = AutoTokenizer.from_pretrained(tiny_llama_folder)
    ours = load_model(str(tiny_llama_folder)).tokenizer
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == (
        fresh.bos_token,
        fresh.eos_token,
        fresh.pad_token,
    )
    assert ours("Hello")["input_ids"] == fresh("Hello")["input_ids"]


def test_attention_stays_transformers_own(tiny_model: Any) -> None:
    assert tiny_model.network.config._attn_implementation == "sdpa"


def test_the_hash_names_the_weights_and_nothing_else(
    tiny_llama_folder: Path, tiny_qwen_folder: Path, tiny_model: Any
) -> None:
    from persona_probe.models.loading import load_model

    half = load_model(str(tiny_llama_folder), dtype="bfloat16")
    assert half.model_hash == tiny_model.model_hash
    with half.adapter("tuned"):
        assert half.describe().model_hash == tiny_model.model_hash
    assert load_model(str(tiny_qwen_folder)).model_hash != tiny_model.model_hash


def test_hook_points_in_the_wrong_place_are_noticed(tiny_model: Any) -> None:
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.bridge import check_wiring

    points = [block.hook_out for block in tiny_model.bridge.blocks]
    check_wiring(tiny_model.network, points, tiny_model.d_model)
    with pytest.raises(PersonaProbeError, match="not its residual stream"):
        check_wiring(tiny_model.network, points[::-1], tiny_model.d_model)
    unused = [*points[:-1], type(points[0])()]
    with pytest.raises(PersonaProbeError, match="not its residual stream"):
        check_wiring(tiny_model.network, unused, tiny_model.d_model)


def test_an_adapter_trained_anew_has_another_hash(tiny_llama_folder: Path, tmp_path: Path) -> None:
    """Two adapters of one name are told apart in provenance by their weights."""
    from persona_probe.models.loading import load_model

    copied = tmp_path / "tuned"
    shutil.copytree(tiny_llama_folder / "adapters" / "other", copied)
    model = load_model(str(tiny_llama_folder))
    assert model.describe().adapter_hash is None
    with model.adapter("tuned"):
        first = model.describe().adapter_hash
    with model.adapter(str(copied)):
        second = model.describe().adapter_hash
    with model.adapter("other"):
        assert model.describe().adapter_hash == second
    assert first is not None
    assert first != second


def test_an_adapter_can_be_attached_in_inference_mode(tiny_llama_folder: Path) -> None:
    """And is switched, and read through, outside of it."""
    import torch

    from persona_probe.models.loading import load_model

    model, other = (load_model(str(tiny_llama_folder)) for _ in range(2))
    with torch.inference_mode(), model.adapter("tuned"):
        pass
    batch = model.pad([[5, 17, 200]], "right")
    inputs = (batch.ids, batch.attention_mask, batch.position_ids)
    with model.adapter("tuned"), other.adapter("tuned"):
        assert model.logits(*inputs).equal(other.logits(*inputs))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_model_that_is_spread_by_a_device_map_reads_the_same(tiny_llama_folder: Path) -> None:
    from persona_probe.models.loading import load_model

    spread = load_model(
        str(tiny_llama_folder),
        device_map={"model.embed_tokens": "cpu", "model": "cpu", "lm_head": "cpu"},
    )
    plain = load_model(str(tiny_llama_folder))
    batch = plain.pad([[5, 17, 200]], "right")
    inputs = (batch.ids, batch.attention_mask, batch.position_ids)
    with spread.adapter("tuned"), plain.adapter("tuned"):
        assert spread.logits(*inputs).equal(plain.logits(*inputs))
    assert spread.packs


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    from persona_probe import load_model
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=r"no config\.json in it"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RequestError, match="tokenizer is missing"):
        load_model(str(tmp_path))
