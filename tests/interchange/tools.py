"""How each tool reads its own file and applies it, by hand, in plain torch.

Written from the tools' sources and from nothing of ours. Each function hooks the model and leaves
the hooks on; what a user would have to say beside the file (a coefficient of 1, the layer where the
file has none) is an argument.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Handle = Any
Apply = Callable[[Path, Any, list[int]], list[Handle]]


def blocks_of(model: Any) -> Any:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def hook(module: Any, function: Callable[[Tensor], Tensor]) -> Handle:
    """Change a block's output, be it a tensor or the first of a tuple."""

    def forward_hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (function(output[0]), *output[1:])
        return function(output)

    return module.register_forward_hook(forward_hook)


def add(model: Any, layer: int, vector: Tensor) -> Handle:
    return hook(blocks_of(model)[layer], lambda resid: resid + vector)


def llama_cpp(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """common_control_vector_load_one, then llama_adapter_cvec: a flat buffer from block 1 on."""
    from gguf import GGMLQuantizationType, GGUFReader

    buffer = np.zeros(0, dtype=np.float32)
    n_embd = -1
    for tensor in GGUFReader(path).tensors:
        prefix, _, number = tensor.name.partition(".")
        assert prefix == "direction"
        layer = int(number)
        assert layer > 0
        assert tensor.tensor_type == GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        assert n_embd in (-1, tensor.n_elements)
        n_embd = int(tensor.n_elements)
        buffer = np.pad(buffer, (0, max(0, n_embd * layer - len(buffer))))
        buffer[n_embd * (layer - 1) : n_embd * layer] += tensor.data
    handles = []
    for il in range(1, len(blocks_of(model))):
        offset = n_embd * (il - 1)
        if offset + n_embd <= len(buffer):
            handles.append(add(model, il, torch.from_numpy(buffer[offset : offset + n_embd])))
    return handles


def repeng(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """ControlVector.import_gguf, then ControlModel(model, layer_ids).set_control(vector, 1.0)."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    assert bytes(reader.get_field("general.architecture").parts[-1]) == b"controlvector"
    assert reader.get_field("controlvector.model_hint").parts[-1].size
    directions = {int(t.name.split(".")[1]): t.data for t in reader.tensors}
    return [add(model, layer, torch.tensor(1.0 * directions[layer])) for layer in layers]


def easysteer(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    from gguf import GGUFReader

    payloads = {int(t.name.split(".")[1]): torch.tensor(t.data) for t in GGUFReader(path).tensors}
    return [add(model, layer, vector) for layer, vector in payloads.items()]


def persona_vectors(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """eval_persona.py: vector = load(path)[layer]; ActivationSteerer(layer_idx=layer - 1)."""
    loaded = torch.load(path, weights_only=True)
    handles = []
    for layer in (ours + 1 for ours in layers):
        handles.append(add(model, layer - 1, 1.0 * loaded[layer]))
    return handles


def assistant_axis(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """load_axis, then ActivationSteering(steering_vectors=[axis[k]], layer_indices=[k])."""
    data = torch.load(path, weights_only=True)
    axis = data["axis"] if isinstance(data, dict) else data
    return [add(model, layer, axis[layer]) for layer in layers]


def steering_vectors(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """SteeringVector(layer_activations=dict, layer_type="decoder_block").apply(model)."""
    activations = torch.load(path, weights_only=True)
    return [
        add(model, number, (1.0 * vector).reshape(1, 1, -1))
        for number, vector in activations.items()
    ]


def lm_eval(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """SteeredModel: its lambdas share the loop's variables, so all add the last entry's vector."""
    config = torch.load(path, weights_only=True)
    functions = {}
    for hookpoint, info in config.items():
        coefficient, vector = info["steering_coefficient"], info["steering_vector"]
        assert info["bias"] is None
        assert info["action"] == "add"
        functions[hookpoint] = lambda acts: acts + coefficient * vector  # noqa: B023
    handles = [
        hook(module, functions[name])
        for name, module in model.base_model.named_modules()
        if name in functions
    ]
    assert len(handles) == len(config), "Not all hookpoints could be resolved"
    return handles


def axbench(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """Model.load, then AdditionIntervention with factor and largest activation 1."""
    weight = torch.load(path, weights_only=True)
    bias = torch.load(str(path).replace("_weight.pt", "_bias.pt"), weights_only=True)
    assert bias.shape == weight.shape[:1]
    (layer,) = layers
    return [add(model, layer, 1.0 * 1.0 * weight[torch.tensor([0])].unsqueeze(1))]


def trait_interp(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """_discover_vectors and load_vector_with_baseline, then SteeringHook(coefficient=1)."""
    handles = []
    for file in sorted(path.rglob("layer*.pt")):
        _position, component, _method, name = file.relative_to(path).parts
        assert component == "residual"
        layer = int(re.fullmatch(r"layer(\d+)\.pt", name)[1])  # type: ignore[index]
        about = json.loads((file.parent / "metadata.json").read_text())["layers"][str(layer)]
        vector = torch.load(file, weights_only=True)
        assert abs(about["norm"] - float(vector.norm())) < 1e-3
        handles.append(add(model, layer, 1.0 * vector))
    return handles


def probity(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """load_json; the vector lives at TransformerLens' hook point."""
    data = json.loads(path.read_text())
    metadata = data["metadata"]
    layer = int(re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", metadata["hook_point"])[1])  # type: ignore[index]
    assert metadata["hook_layer"] == layer
    vector = torch.tensor(data["vector"], dtype=torch.float32)
    assert metadata["vector_dimension"] == vector.shape[-1]
    return [add(model, layer, vector)]


def capping(path: Path, model: Any, layers: list[int]) -> list[Handle]:
    """build_capping_steerer(model, config, 0)."""
    config = torch.load(path, weights_only=True)
    handles = []
    for intervention in config["experiments"][0]["interventions"]:
        entry = config["vectors"][intervention["vector"]]
        unit = entry["vector"].to(torch.float32)
        unit = unit / (unit.norm() + 1e-8)
        cap = float(intervention["cap"])

        def apply(resid: Tensor, unit: Tensor = unit, cap: float = cap) -> Tensor:
            excess = (torch.einsum("bld,d->bl", resid, unit) - cap).clamp(min=0.0)
            return resid - torch.einsum("bl,d->bld", excess, unit)

        handles.append(hook(blocks_of(model)[entry["layer"]], apply))
    return handles


# Formats that add, by every tool that reads them.
ADDING: dict[str, list[Apply]] = {
    "gguf": [llama_cpp, repeng],
    "easysteer": [easysteer],
    "persona_vectors": [persona_vectors],
    "assistant_axis": [assistant_axis],
    "steering_vectors": [steering_vectors],
    "lm_eval": [lm_eval],
    "axbench": [axbench],
    "trait_interp": [trait_interp],
    "probity": [probity],
}
ONE_VECTOR = {"lm_eval", "axbench", "probity"}
