"""Which weights of a network write into its residual stream, so that they can be changed for good.

One entry per family of architectures. A change of weights can do two things that a hook does: add
a constant after a block, as a bias of the last thing that writes there, and keep a direction from
ever being written. Both leave an ordinary model of transformers that needs no code of ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from persona_probe.errors import RequestError

MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
LLAMA_BIASES = ("self_attn.o_proj", *(f"mlp.{name}" for name in MLP_PROJECTIONS))


@dataclass(frozen=True)
class Family:
    """Where an architecture writes into the residual stream.

    Attributes:
        blocks: name of the list of blocks.
        writers: within a block, the last layer of attention and of the MLP, in this order.
        embeddings: what writes before the first block; rows are [entry, d_model].
    """

    blocks: str
    writers: tuple[str, str]
    embeddings: tuple[str, ...]


_GATED = Family("model.layers", ("self_attn.o_proj", "mlp.down_proj"), ("model.embed_tokens",))
FAMILIES: dict[str, Family] = {
    "llama": _GATED,
    "mistral": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
    "phi3": _GATED,
    "gemma": _GATED,
    "gpt2": Family(
        "transformer.h", ("attn.c_proj", "mlp.c_proj"), ("transformer.wte", "transformer.wpe")
    ),
    "gpt_neox": Family(
        "gpt_neox.layers", ("attention.dense", "mlp.dense_4h_to_h"), ("gpt_neox.embed_in",)
    ),
}

LLAMA_WITH_BIASES = ("llama", "qwen2", "mistral")
"""Families that are Llama but for biases and sliding windows; Llama's configuration has biases."""

NORM_AFTER = ("gemma2", "gemma3", "gemma3_text", "olmo2", "olmo3")


def family_of(network: Any) -> Family:
    """The family of a network.

    Raises:
        RequestError: its weights cannot be baked, with the reason.
    """
    kind = _kind(network)
    if kind in NORM_AFTER:
        raise RequestError(
            f"{kind} normalises what its blocks write before it reaches the residual stream, so no "
            "change of weights does there what the hook does; steer it with hooks"
        )
    if kind not in FAMILIES:
        raise RequestError(
            f"which weights of {kind} write into its residual stream is not known; steer it with "
            f"hooks, or choose one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def add_constant(network: Any, layer: int, vector: Float[Tensor, " d_model"]) -> str:
    """Add a vector to the residual stream after a block, at every position, by a bias.

    Args:
        network: changed in place; its configuration too.
        layer: number of the block, from 0.
        vector: what is added.

    Returns:
        What was done, in words.

    Raises:
        RequestError: the architecture has no such bias, with the reason; nothing is changed then.
    """
    family = family_of(network)
    path = f"{family.blocks}.{layer}.{family.writers[1]}"
    writer = _layer(network, path)
    done = f"added to the bias of {path}"
    if writer.bias is None:
        _require_llama(network)
        done = f"written as the bias of {path}; all other new biases are zero"
        if _kind(network) != "llama":
            done += f", and the {_kind(network)} model is saved as the Llama model that it equals"
        _give_biases(network, family)
        network.config = _as_llama(network.config)
    writer.bias.data = (writer.bias.double() + vector.to(writer.bias.device)).to(writer.bias.dtype)
    return done


def remove_direction(network: Any, unit: Float[Tensor, " d_model"]) -> str:
    """Keep everything that writes into the residual stream from writing along a direction.

    W - v v'W for each of embeddings, attention outputs and MLP outputs, and the same for biases
    (Arditi et al. 2024, arXiv:2406.11717). Where the embedding is also the readout, the readout
    gets a copy of the old one.

    Args:
        network: changed in place; its configuration too, where the readout gets its copy.
        unit: v, of length one.

    Returns:
        What was done, in words.

    Raises:
        RequestError: it is not known what writes in this architecture; nothing is changed then.
    """
    family = family_of(network)
    layers = [*_writers(network, family)]
    v = unit.double() / unit.double().norm()
    tied = bool(network.config.tie_word_embeddings)
    if tied:
        readout = network.get_output_embeddings()
        readout.weight = nn.Parameter(readout.weight.detach().clone(), requires_grad=False)
        network.config.tie_word_embeddings = False
    for name in family.embeddings:
        _project(network.get_submodule(name).weight, v, axis=1)
    for layer in layers:
        # A Linear has [out, in]; GPT-2's Conv1D has [in, out].
        _project(layer.weight, v, axis=0 if isinstance(layer, nn.Linear) else 1)
        if layer.bias is not None:
            _project(layer.bias, v, axis=0)
    untied = "; the readout, which was the embedding, keeps its old weights" if tied else ""
    return (
        f"removed from {len(family.embeddings)} embedding and {len(layers)} output matrices{untied}"
    )


def _writers(network: Any, family: Family) -> Iterator[Any]:
    for number in range(network.config.get_text_config().num_hidden_layers):
        for name in family.writers:
            yield _layer(network, f"{family.blocks}.{number}.{name}")


def _layer(network: Any, path: str) -> Any:
    """A linear layer that holds plain numbers."""
    layer: Any = network.get_submodule(path)
    if type(layer).__name__ not in ("Linear", "Conv1D") or not layer.weight.is_floating_point():
        raise RequestError(
            f"{path} is a {type(layer).__name__} of {layer.weight.dtype}, whose weights cannot be "
            "changed in place; start from the unquantised model"
        )
    return layer


def _project(weight: Tensor, unit: Float[Tensor, " d_model"], axis: int) -> None:
    """Take the component along `unit` out of one axis, in place, computed in float64."""
    w = weight.detach().double().movedim(axis, -1)
    v = unit.to(w.device)
    weight.data = (w - (w @ v)[..., None] * v).movedim(-1, axis).to(weight.dtype).contiguous()


def _require_llama(network: Any) -> None:
    kind, config = _kind(network), network.config
    if kind not in LLAMA_WITH_BIASES:
        raise RequestError(
            f"the MLP of {kind} has no bias and its configuration has no switch for one, so a "
            "constant cannot be written into its weights; steer it with hooks, or ablate"
        )
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if windows or (kind == "mistral" and config.sliding_window is not None):
        raise RequestError(
            f"this {kind} model has sliding-window attention, which the Llama architecture, whose "
            "biases would be used, has not; steer it with hooks"
        )


def _give_biases(network: Any, family: Family) -> None:
    """Zero biases wherever Llama's switches put some and there are none yet."""
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", *LLAMA_BIASES]
    if not _attention_biases(network.config):
        names = [name for name in LLAMA_BIASES if name.startswith("mlp.")]
    for number in range(network.config.num_hidden_layers):
        for name in names:
            layer = _layer(network, f"{family.blocks}.{number}.{name}")
            if layer.bias is None:
                zeros = layer.weight.new_zeros(layer.out_features)
                layer.bias = nn.Parameter(zeros, requires_grad=False)


def _attention_biases(config: Any) -> bool:
    return config.model_type == "qwen2" or bool(getattr(config, "attention_bias", False))


def _as_llama(config: Any) -> Any:
    """The configuration of the same network as a Llama with biases."""
    from transformers import LlamaConfig

    known = LlamaConfig().to_dict()
    values = {key: value for key, value in config.to_dict().items() if key in known}
    values |= {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": _attention_biases(config),
        "mlp_bias": True,
    }
    return LlamaConfig(**values)


def _kind(network: Any) -> str:
    return str(network.config.model_type)
