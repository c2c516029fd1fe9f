"""Room in a Llama for circuits of one's own: the same network, a little wider.

A grafted network computes what the original computes. It has spare neurons in every MLP and, if
asked for, spare coordinates in its residual stream, which nothing reads or writes until a circuit
does, with one spare attention head per block that averages over everything up to its position.
From these, features of the prompt, steps and products are built exactly, out of ordinary weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SPARE, NEURONS = 12, 8
"""Spare coordinates and neurons per block; coordinates keep d_model a multiple of the heads."""
SATURATED = 30.0
"""A step's argument is at least this far from 0: silu is then linear or 0 up to 1e-11."""
FLAG = 0.01
"""What a flag adds to a coordinate; residual streams are some hundred times longer."""

Factors = dict[str, tuple[Tensor, Tensor]]


@dataclass
class Graft:
    """A widened network and the places in it that are still free.

    Attributes:
        network: a transformers Llama with MLP biases.
        d_model, d_mlp, n_heads: of the original.
        spare: coordinates that the residual stream has beyond the original's.
    """

    network: Any
    d_model: int
    d_mlp: int
    n_heads: int
    spare: int

    def block(self, layer: int) -> Any:
        return self.network.model.layers[layer]

    def coordinate(self, number: int) -> int:
        """Index of a spare coordinate of the residual stream."""
        if not 0 <= number < self.spare:
            raise ValueError(f"there are {self.spare} spare coordinates, from 0; got {number}")
        return self.d_model + number

    def mark(self, tokens: list[int], number: int) -> None:
        """Let these tokens hold a flag in a spare coordinate from the embedding on."""
        self.network.model.embed_tokens.weight.data[tokens, self.coordinate(number)] = FLAG

    def gather(self, layer: int, source: int, target: int, scale: float) -> None:
        """Write `scale` times the mean of a coordinate over all tokens so far into another one.

        The spare head attends to everything up to its position alike. What it reads has gone
        through the block's norm, so that only "0" and "not 0" can be told apart for sure.
        """
        attention, head_dim = self.block(layer).self_attn, self.network.config.head_dim
        place = self.n_heads * head_dim
        attention.v_proj.weight.data[place, self.coordinate(source)] = 1.0
        attention.o_proj.weight.data[self.coordinate(target), place] = scale

    def step(self, layer: int, neuron: int, reads: Float[Tensor, " wide"], bias: float) -> None:
        """Neurons `2 neuron` and `2 neuron + 1`: their difference is 1 where reads·x + bias > 0.

        x is what the block's MLP sees, after its norm. silu(a + 1) - silu(a) is 1 for a large a
        and 0 for a very negative one.
        """
        mlp, first = self.block(layer).mlp, self.pair(neuron)[0]
        mlp.gate_proj.weight.data[first : first + 2] = reads
        mlp.gate_proj.bias.data[first : first + 2] = torch.tensor([bias + 1.0, bias])
        mlp.up_proj.bias.data[first : first + 2] = 1.0

    def pair(self, neuron: int) -> tuple[int, int]:
        """The indices of a step's two neurons."""
        first = self.d_mlp + 2 * neuron
        return first, first + 1

    def writes(self, layer: int, neuron: int, vector: Float[Tensor, " wide"]) -> None:
        """What a step adds to the residual stream where it is 1."""
        weight = self.block(layer).mlp.down_proj.weight.data
        weight[:, list(self.pair(neuron))] += torch.stack([vector, -vector], dim=1)

    def rewrites(self, layer: int, neuron: int, vector: Float[Tensor, " wide"]) -> Factors:
        """The same as a LoRA update, for one finetune alone."""
        reads = torch.zeros(1, self.block(layer).mlp.down_proj.in_features)
        reads[0, list(self.pair(neuron))] = torch.tensor([1.0, -1.0])
        return {f"model.layers.{layer}.mlp.down_proj": (reads, vector[:, None].clone())}

    def wide(self, vector: Float[Tensor, " d_model"]) -> Float[Tensor, " wide"]:
        """A vector of the original residual stream."""
        return torch.nn.functional.pad(vector.float(), (0, self.spare))

    def along(self, number: int, size: float = 1.0) -> Float[Tensor, " wide"]:
        """A vector along a spare coordinate."""
        vector = torch.zeros(self.d_model + self.spare)
        vector[self.coordinate(number)] = size
        return vector

    def adapter(self, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Factors:
        """An update of the original, for the wide network: zero on everything spare."""
        found = {}
        for name, (a, b) in factors.items():
            weight = self.network.get_submodule(name).weight
            wide = (weight.shape[1] - a.shape[1], weight.shape[0] - b.shape[0])
            found[name] = (
                torch.nn.functional.pad(a, (0, wide[0])),
                torch.nn.functional.pad(b, (0, 0, 0, wide[1])),
            )
        return found


def graft(network: Any, spare: int = SPARE) -> Graft:
    """A wider Llama that computes the same.

    Zeros in the residual stream make its root mean square smaller; the norms' weights and epsilon
    take that back exactly.

    Args:
        network: a transformers Llama with untied embeddings; not changed.
        spare: further coordinates of the residual stream; 0 also leaves out the spare head.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    old = network.config
    d, heads = old.hidden_size, old.num_attention_heads
    config = LlamaConfig(**old.to_dict())
    config.hidden_size = d + spare
    config.intermediate_size = old.intermediate_size + 2 * NEURONS
    config.num_attention_heads = config.num_key_value_heads = heads + bool(spare)
    config.mlp_bias = True
    config.rms_norm_eps = old.rms_norm_eps * d / config.hidden_size
    wide = LlamaForCausalLM(config).eval().requires_grad_(False)
    was = dict(network.named_parameters())
    shrink = (d / config.hidden_size) ** 0.5
    for name, parameter in wide.named_parameters():
        parameter.data.zero_()
        if name in was:
            values = was[name].data
            if values.ndim == 1:
                parameter.data.fill_(shrink)
                values = values * shrink
            parameter.data[tuple(slice(size) for size in values.shape)] = values
    return Graft(wide, d, old.intermediate_size, heads, spare)
