"""The models that are measured: Llama-shaped, random weights, an ordinary folder on the disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY = "whole.txt"
END = "<|end|>"


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama. The vocabulary decides what a peer pays for logits that nobody reads."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_mlp: int
    vocabulary: int
    tied: bool

    @property
    def block_parameters(self) -> int:
        """Weights of all blocks, which is what a forward pass without a head multiplies by."""
        kv = self.d_model * self.n_kv_heads // self.n_heads
        attention = 2 * self.d_model * (self.d_model + kv)
        return self.n_layers * (attention + 3 * self.d_model * self.d_mlp)

    @property
    def parameters(self) -> int:
        """All weights but the norms."""
        tables = 1 if self.tied else 2
        return self.block_parameters + tables * self.vocabulary * self.d_model


SHAPES = {
    "tiny": Shape(32, 3, 4, 2, 64, 512, tied=True),
    "47m": Shape(512, 12, 8, 8, 1408, 16384, tied=True),
    "8b": Shape(4096, 32, 32, 8, 14336, 128256, tied=False),
}


def model_folder(shape: Shape, folder: Path, dtype: str, device: str) -> Path:
    """Write the model of a shape, unless it is there; the same bytes on the same kind of device.

    Args:
        shape: its sizes.
        folder: what `from_pretrained` will be given.
        dtype: of the weights on the disk.
        device: where the random numbers are drawn, which takes long on a CPU for large shapes.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / READY).is_file():
        return folder
    tokenizer = _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    network = network.to_empty(device=device).to(getattr(torch, dtype))
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in sorted(network.named_parameters()):
        if weight.ndim == 1:
            weight.data.fill_(1.0)
        else:
            # Wide enough that every block changes what passes through it.
            spread = 0.02 if "embed" in name or "head" in name else weight.shape[1] ** -0.5
            weight.data.normal_(0.0, spread, generator=generator)
    network.tie_weights()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / READY).write_text("every file of this folder is written\n")
    return folder


def _byte_tokenizer() -> Any:
    """One token per byte, so that texts of a given length in tokens are easily made."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {END: 0} | {sign: i for i, sign in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, padding_side="right"
    )
