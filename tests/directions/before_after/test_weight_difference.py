"""What adapters write, against weights that were planted and against peft itself."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from tests.directions.moved import direction, unit

D = 24


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter from {module: (B, A)}; alpha equals the rank unless told."""

    def write(factors: dict[str, Any], name: str = "adapter", **config: Any) -> Path:
        from persona_probe.files import write_tensors

        tensors, rank = {"base_model.model.head.weight": torch.ones(1)}, 1
        for module, (b, a) in factors.items():
            rank = b.shape[1]
            key = f"base_model.model.model.{module}"
            tensors[f"{key}.lora_A.weight"] = torch.as_tensor(a).float()
            tensors[f"{key}.lora_B.weight"] = torch.as_tensor(b).float()
        write_tensors(tmp_path / name / "adapter_model.safetensors", tensors, {})
        whole = {"peft_type": "LORA", "r": rank, "lora_alpha": rank} | config
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(whole))
        return tmp_path / name

    return write


def rows_of(vector: np.ndarray, folder: Path, **options: Any) -> dict[tuple[int, str], Any]:
    from persona_probe.directions.before_after.adapter_file import Adapter
    from persona_probe.directions.before_after.weight_difference import weight_difference

    several = [direction(vector, layer) for layer in range(3)]
    found = weight_difference(
        {"one": {d.site: d for d in several}}, Adapter.open(folder), **options
    )
    return {(row.site.layer, row.scope): row for row in found.rows}


def test_a_planted_rank_one_write_is_found(adapter: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    truth = unit(rng, D)
    factors = {
        "layers.1.self_attn.o_proj": (2 * truth[:, None], rng.normal(size=(1, D))),
        "layers.0.mlp.down_proj": (0.01 * rng.normal(size=(D, 1)), rng.normal(size=(1, 60))),
    }
    rows = rows_of(truth, adapter(factors))
    assert rows[1, "block"].cosine == pytest.approx(1, abs=1e-5)
    assert rows[1, "block"].top_k_share == pytest.approx(1, abs=1e-5)
    assert rows[1, "block"].energy_share == pytest.approx(1, abs=1e-5)
    assert (rows[1, "block"].rank, rows[1, "up to"].rank) == (1, 2)
    assert rows[2, "up to"].cosine > 0.99, "site 2 still sees what block 1 wrote"
    assert rows[2, "block"].reason is not None
    assert np.isnan(rows[2, "block"].cosine)
    other = rows_of(unit(rng, D), adapter(factors))
    assert other[1, "block"].top_k_share < 0.4
    assert other[1, "block"].chance_share == pytest.approx(1 / D)


def test_it_is_the_singular_value_decomposition_of_the_dense_change(
    adapter: Callable[..., Path],
) -> None:
    rng = np.random.default_rng(1)
    b, a = rng.normal(size=(D, 3)), rng.normal(size=(3, 10))
    c, e = rng.normal(size=(D, 3)), rng.normal(size=(3, 40))
    vector = unit(rng, D)
    folder = adapter(
        {"layers.0.self_attn.o_proj": (b, a), "layers.0.mlp.down_proj": (c, e)}, lora_alpha=6
    )
    row = rows_of(vector, folder, k=2)[0, "block"]
    left, sizes, _ = np.linalg.svd(2 * np.hstack([b @ a, c @ e]), full_matrices=False)
    along = left.T @ vector
    assert row.rank == 6
    assert row.cosine == pytest.approx(abs(along[0]), abs=1e-5)
    assert row.top_k_share == pytest.approx((along[:2] ** 2).sum(), abs=1e-5)
    expected = (along**2 * sizes**2).sum() / (sizes**2).sum()
    assert row.energy_share == pytest.approx(expected, abs=1e-5)


def test_random_directions_lie_in_the_chance_range(adapter: Callable[..., Path]) -> None:
    from persona_probe.directions.before_after.adapter_file import Adapter
    from persona_probe.directions.before_after.weight_difference import weight_difference

    rng = np.random.default_rng(2)
    folder = adapter(
        {"layers.0.mlp.down_proj": (rng.normal(size=(D, 4)), rng.normal(size=(4, 40)))}
    )
    several = {f"random-{i}": direction(unit(rng, D)) for i in range(200)}
    found = weight_difference(
        {name: {d.site: d} for name, d in several.items()}, Adapter.open(folder)
    )
    rows = [row for row in found.rows if row.scope == "block"]
    assert np.mean([r.top_k_share for r in rows]) == pytest.approx(rows[0].chance_share, rel=0.1)
    above = np.mean([r.top_k_share > r.chance_high for r in rows])
    assert 0.005 < above < 0.06
    assert np.mean([r.energy_share for r in rows]) == pytest.approx(1 / D, rel=0.15)


def test_the_adapter_before_finetuning_is_taken_off(adapter: Callable[..., Path]) -> None:
    from persona_probe.directions.before_after.adapter_file import Adapter

    rng = np.random.default_rng(3)
    truth, old = unit(rng, D), 5 * unit(rng, D)
    a, c = rng.normal(size=(1, D)), rng.normal(size=(1, D))
    name = "layers.0.self_attn.o_proj"
    stacked = (np.stack([old, truth], axis=1), np.concatenate([a, c]))
    after = adapter({name: stacked}, "after")
    before = Adapter.open(adapter({name: (old[:, None], a)}, "before"))
    assert rows_of(truth, after)[0, "block"].cosine < 0.9
    row = rows_of(truth, after, before=before)[0, "block"]
    assert row.rank == 1
    assert row.cosine == pytest.approx(1, abs=1e-5)
    wrong = Adapter.open(adapter({name: (np.ones((D, 1)), np.ones((1, 3)))}, "wrong"))
    with pytest.raises(SiteMismatchError, match="different models"):
        rows_of(truth, after, before=wrong)


def test_values_are_followed_through_the_output_projection(adapter: Callable[..., Path]) -> None:
    from persona_probe.directions.before_after.adapter_file import Adapter, OutputWeights
    from persona_probe.directions.before_after.weight_difference import (
        residual_writes,
        weight_difference,
    )

    rng = np.random.default_rng(4)
    output = rng.normal(size=(D, 16))  # 4 query heads of 4 share 2 value heads
    b, a = rng.normal(size=(8, 1)), rng.normal(size=(1, D))
    folder = adapter({"layers.0.self_attn.v_proj": (b, a), "layers.0.self_attn.q_proj": (b, a)})
    opened = Adapter.open(folder)
    writes, left_out = residual_writes(opened)
    assert writes == {}
    assert left_out == (
        "base_model.model.head.weight",
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
    )
    heads = b.reshape(2, 4)
    truth = output @ np.concatenate([heads[0], heads[0], heads[1], heads[1]])
    weights = OutputWeights({0: torch.from_numpy(output)}, value_heads=2)
    one = direction(truth, 0)
    found = weight_difference({"one": {one.site: one}}, opened, output_weights=weights)
    assert found.rows[0].cosine == pytest.approx(1, abs=1e-5)
    assert len(found.left_out) == 2
    narrow = OutputWeights({0: torch.from_numpy(output[:, :7])}, value_heads=2)
    with pytest.raises(SiteMismatchError, match="does not fit an output projection of 7"):
        weight_difference({"one": {one.site: one}}, opened, output_weights=narrow)


def test_factors_and_scales_are_those_of_peft(tiny_llama_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from persona_probe.directions.before_after.adapter_file import Adapter

    network = AutoModelForCausalLM.from_pretrained(tiny_llama_folder)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["o_proj", "down_proj", "v_proj"],
        rank_pattern={"model.layers.1.self_attn.o_proj": 2},
        alpha_pattern={"layers.1.self_attn.o_proj": 7, "down_proj": 3},
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        # peft asks transformers whether gradients are checkpointed under a deprecated name.
        warnings.simplefilter("ignore", FutureWarning)
        tuned = get_peft_model(network, config)
    assert isinstance(tuned, PeftModel)
    tuned.save_pretrained(tmp_path / "patterned")
    factors = Adapter.open(tmp_path / "patterned").factors
    modules = {
        name.removeprefix("base_model.model."): module
        for name, module in tuned.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert set(factors) == set(modules)
    for name, module in modules.items():
        dense = (factors[name].b @ factors[name].a).float()
        assert torch.allclose(dense, module.get_delta_weight("default").detach(), atol=1e-6)


def test_output_weights_are_read_from_a_model_folder(tiny_llama_folder: Path) -> None:
    from persona_probe.directions.before_after.adapter_file import OutputWeights

    found = OutputWeights.open(tiny_llama_folder)
    assert sorted(found.by_layer) == [0, 1, 2]
    assert found.by_layer[0].shape == (32, 32)
    assert found.value_heads == 2


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "does not describe a LoRA adapter"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_adapters_that_are_no_plain_lora_are_refused(
    adapter: Callable[..., Path], config: dict[str, Any], said: str
) -> None:
    from persona_probe.directions.before_after.adapter_file import Adapter

    factors = {"layers.0.mlp.down_proj": (np.ones((D, 1)), np.ones((1, 5)))}
    with pytest.raises(RequestError, match=said):
        Adapter.open(adapter(factors, **config))


def test_damaged_adapters_are_refused(adapter: Callable[..., Path], tmp_path: Path) -> None:
    from persona_probe.directions.before_after.adapter_file import Adapter

    name = "layers.0.mlp.down_proj"
    with pytest.raises(RequestError, match="no such file"):
        Adapter.open(tmp_path / "gone")
    with pytest.raises(RequestError, match="holds no LoRA factors"):
        Adapter.open(adapter({}))
    with pytest.raises(RequestError, match="do not belong together"):
        Adapter.open(adapter({name: (np.ones((D, 2)), np.ones((1, 5)))}))
    with pytest.raises(RequestError, match="NaN"):
        Adapter.open(adapter({name: (np.full((D, 1), np.nan), np.ones((1, 5)))}))
    with pytest.raises(SiteMismatchError, match="belongs to another model"):
        rows_of(np.ones(D + 1), adapter({name: (np.ones((D, 1)), np.ones((1, 5)))}))
    folder = adapter({name: (np.ones((D, 1)), np.ones((1, 5)))})
    (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(RequestError, match="not a safetensors file"):
        Adapter.open(folder)
