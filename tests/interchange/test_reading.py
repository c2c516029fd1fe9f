"""Files made as each tool makes them land at the site where their numbers were read."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from tests.interchange.test_parity import batch
from tests.interchange.tools import blocks_of

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.residual_model import ResidualModel
    from persona_probe.models.shape import ModelShape
    from persona_probe.models.site import Site


def read(name: str, path: Path, shape: "ModelShape", **known: Any) -> "dict[Site, Direction]":
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions

    return import_directions(path, name, Asked("virtue", shape=shape, **known))["virtue"]


@pytest.fixture(scope="session")
def differences(ours: "ResidualModel") -> Tensor:
    """What our hooks see: last token of row 0 minus that of row 1, [site d_model]."""
    seen: dict[int, Tensor] = {}
    hooks = [(site, lambda x, k=site.layer: seen.update({k: x[:, -1]})) for site in ours.sites]
    with torch.no_grad(), ours.hooks(hooks):
        ours.logits(**batch())
    return torch.stack([seen[layer][0] - seen[layer][1] for layer in range(3)])


def states(theirs: Any) -> dict[str, Tensor]:
    """The last token's state of rows 0 and 1 as other tools read it, [layer, row, d_model]."""
    inputs, outputs, handles = [], [], []
    for block in blocks_of(theirs):
        handles.append(block.register_forward_pre_hook(lambda _, x: inputs.append(x[0][:2, -1])))
        handles.append(
            block.register_forward_hook(
                lambda _, __, x: outputs.append((x[0] if isinstance(x, tuple) else x)[:2, -1])
            )
        )
    arguments = batch()
    ids = arguments.pop("ids")
    with torch.no_grad():
        hidden = theirs(input_ids=ids, **arguments, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    hidden = torch.stack([state[:2, -1] for state in hidden])
    return {"in": torch.stack(inputs), "out": torch.stack(outputs), "hidden": hidden}


def agree(found: "dict[Site, Direction]", differences: Tensor, layers: list[int]) -> None:
    assert [site.layer for site in found] == layers
    for site, direction in found.items():
        torch.testing.assert_close(direction.raw, differences[site.layer], atol=1e-4, rtol=0)
        for other in {0, 1, 2} - {site.layer}:
            assert (direction.raw - differences[other]).abs().max() > 0.01


def contrast(of: Tensor) -> Tensor:
    return (of[:, 0] - of[:, 1]).clone()


def test_persona_vectors(
    theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "evil_response_avg_diff.pt"
    torch.save(contrast(states(theirs)["hidden"]), path)
    found = read("persona_vectors", path, shape)
    agree(found, differences, [0, 1])
    assert {direction.position for direction in found.values()} == {"response_mean"}


def test_refusal_direction(
    theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path
) -> None:
    """mean_diffs.pt in float64 at two token positions, and the one chosen of it."""
    rows = contrast(states(theirs)["in"]).double()
    mean_diffs = torch.stack([torch.randn_like(rows), rows])
    (tmp_path / "generate_directions").mkdir()
    torch.save(mean_diffs, tmp_path / "generate_directions" / "mean_diffs.pt")
    torch.save(rows[2], tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text(json.dumps({"pos": -1, "layer": 2}))
    agree(read("refusal_direction", tmp_path / "direction.pt", shape), differences, [1])
    for known in ({}, {"pick": "-1"}):
        file = tmp_path / "generate_directions" / "mean_diffs.pt"
        found = read("refusal_direction", file, shape, **known)
        agree(found, differences, [0, 1])
        assert {direction.position for direction in found.values()} == {"last_prompt_token"}


def test_caa(theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path) -> None:
    rows = contrast(states(theirs)["out"])
    for layer, row in enumerate(rows):
        torch.save(row.clone(), tmp_path / f"vec_layer_{layer}_Llama-2-7b-chat-hf.pt")
    agree(read("caa", tmp_path, shape), differences, [0, 1, 2])
    agree(read("caa", tmp_path / "vec_layer_1_Llama-2-7b-chat-hf.pt", shape), differences, [1])


@pytest.mark.parametrize("kind", ["bare", "library", "pipeline"])
def test_assistant_axis(
    kind: str, theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path
) -> None:
    outputs = states(theirs)["out"]
    axis, (default, role) = contrast(outputs), outputs.unbind(dim=1)
    held = {
        "bare": axis,
        "library": {"axis": axis, "metadata": {}},
        "pipeline": {"axis": axis, "default_mean": default, "role_mean": role, "n_roles": 1},
    }
    torch.save(held[kind], tmp_path / "axis.pt")
    found = read("assistant_axis", tmp_path / "axis.pt", shape)
    agree(found, differences, [0, 1, 2])
    for site, direction in found.items():
        if kind == "pipeline":
            assert direction.project(default[site.layer]) == pytest.approx(0.5, abs=1e-4)
            assert direction.project(role[site.layer]) == pytest.approx(-0.5, abs=1e-4)
        else:
            assert math.isnan(direction.midpoint)


def test_assistant_axis_roles(
    theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path
) -> None:
    """Roles are stored in bfloat16 by some pipelines; here in float32 for comparison."""
    role, default = states(theirs)["out"].unbind(dim=1)
    torch.save({"vector": role.clone(), "type": "pos_3", "role": "poet"}, tmp_path / "poet.pt")
    torch.save({"vector": default.clone(), "type": "mean"}, tmp_path / "default.pt")
    found = read("assistant_axis_roles", tmp_path / "poet.pt", shape)
    agree(found, differences, [0, 1, 2])
    for site, direction in found.items():
        assert direction.project(role[site.layer]) == pytest.approx(0.5, abs=1e-4)


def test_probity_before_a_block_is_the_site_before_it(
    theirs: Any, shape: "ModelShape", differences: Tensor, tmp_path: Path
) -> None:
    seen = states(theirs)
    for place, side, layers in (("pre", "in", (1, 2)), ("post", "out", (0, 1, 2))):
        for layer in layers:
            metadata = {"hook_point": f"blocks.{layer}.hook_resid_{place}"}
            path = tmp_path / "probe.json"
            vector = [contrast(seen[side])[layer].tolist()]  # a linear probe has a list in a list
            path.write_text(json.dumps({"vector": vector, "metadata": metadata}))
            agree(read("probity", path, shape), differences, [layer - (place == "pre")])


def test_the_bias_of_a_probe_is_its_midpoint(llama_shape: "ModelShape", tmp_path: Path) -> None:
    """Where h·w + b is zero, `project` is zero."""
    from persona_probe.models.site import Site

    weight = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    point = torch.randn(32, generator=torch.Generator().manual_seed(1))
    bias = -(weight @ point)
    torch.save(weight, tmp_path / "Probe_weight.pt")
    torch.save(bias, tmp_path / "Probe_bias.pt")
    for row in (0, 1):
        path = tmp_path / "Probe_weight.pt"
        direction = read("axbench", path, llama_shape, layer=1, pick=str(row))[Site(1)]
        assert direction.project(point) == pytest.approx(0, abs=1e-5)
    metadata = {
        "hook_point": "blocks.1.hook_resid_post",
        "has_bias": True,
        "bias": [bias[0].item()],
    }
    held = {"vector": weight[0].tolist(), "metadata": metadata}
    (tmp_path / "probe.json").write_text(json.dumps(held))
    direction = read("probity", tmp_path / "probe.json", llama_shape)[Site(1)]
    assert direction.project(point) == pytest.approx(0, abs=1e-5)


def test_every_concept_of_axbench_is_a_persona(llama_shape: "ModelShape", tmp_path: Path) -> None:
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions

    torch.save(torch.eye(3, 32), tmp_path / "DiffMean_weight.pt")
    torch.save(torch.zeros(3), tmp_path / "DiffMean_bias.pt")
    path, asked = tmp_path / "DiffMean_weight.pt", Asked("concept", layer=2, shape=llama_shape)
    found = import_directions(path, "axbench", asked)
    assert list(found) == ["concept-0", "concept-1", "concept-2"]
    assert all(math.isnan(d.midpoint) for by_site in found.values() for d in by_site.values())


class SteeringVector:
    """Pickled under the name of the package's class, and with its fields."""

    def __init__(self, layer_activations: dict[int, Tensor], layer_type: str) -> None:
        self.layer_activations, self.layer_type = layer_activations, layer_type


SteeringVector.__module__ = "steering_vectors.steering_vector"


def test_a_steering_vector_saved_whole_is_read_without_its_class(
    llama_shape: "ModelShape", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    from persona_probe.models.site import Site

    module = types.ModuleType("steering_vectors.steering_vector")
    module.SteeringVector = SteeringVector  # type: ignore[attr-defined]
    vector = torch.arange(32.0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "steering_vectors", types.ModuleType("steering_vectors"))
        patch.setitem(sys.modules, "steering_vectors.steering_vector", module)
        torch.save(SteeringVector({1: vector}, "decoder_block"), tmp_path / "v.pt")
        torch.save(SteeringVector({1: vector}, "mlp"), tmp_path / "mlp.pt")
    found = read("steering_vectors", tmp_path / "v.pt", llama_shape)
    torch.testing.assert_close(found[Site(1)].raw, vector)

    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match="'mlp', which are not of the residual stream"):
        read("steering_vectors", tmp_path / "mlp.pt", llama_shape)


def test_an_experiment_picks_the_vectors_of_a_capping_configuration(
    llama_shape: "ModelShape", tmp_path: Path
) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.site import Site

    vectors = {
        name: {"layer": layer, "vector": torch.eye(32)[row].clone()}
        for row, (name, layer) in enumerate([("a", 0), ("b", 1), ("c", 1)])
    }
    experiment = {"id": "layers_0:2", "interventions": [{"vector": "a", "cap": 1.0}]}
    experiment["interventions"].append({"vector": "c", "cap": 2.0})  # type: ignore[attr-defined]
    torch.save({"vectors": vectors, "experiments": [experiment]}, tmp_path / "capping_config.pt")
    path, name = tmp_path / "capping_config.pt", "assistant_axis_capping"
    found = read(name, path, llama_shape, pick="layers_0:2")
    assert [int(d.unit.argmax()) for d in found.values()] == [0, 2]
    assert list(read(name, path, llama_shape, pick="b")) == [Site(1)]
    with pytest.raises(RequestError, match="3 vectors at 2 layers; choose with --pick one of"):
        read(name, path, llama_shape)
    with pytest.raises(RequestError, match="no 'd'; --pick one of layers_0:2, a, b, c"):
        read(name, path, llama_shape, pick="d")
