"""The small surface of a language model that the rest of the package relies on."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persona_probe.errors import SiteMismatchError
from persona_probe.models.adapters import Adapters
from persona_probe.models.chat import Conversation, Tokens, encode
from persona_probe.models.packing import PackedBatch, packed_attention
from persona_probe.models.padding import PaddedBatch, pad
from persona_probe.models.ref import ModelRef
from persona_probe.models.rendering import ChatFormat, tokenizer_hash
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance

Hook = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"] | None]


class _Stop(Exception):
    """Raised by the last hook that is needed, so that later blocks do not run."""


class ResidualModel:
    """A causal language model whose residual stream can be read and changed at every site.

    Made by `load_model`. Weights have no gradients and are never changed, dropout is off.

    Attributes:
        ref: what was asked for.
        network: the transformers model, in TransformerLens' wrapping.
        bridge: TransformerLens' view of it, for what this class does not offer.
        chat_format: how conversations become its text.
        tokenizer: as the model's folder has it.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        context_length: the longest input in tokens; `None` where the model sets no limit.
        pad_id: id for padding, which is never attended to.
        end_ids: ids that end a reply.
    """

    def __init__(
        self,
        ref: ModelRef,
        network: Any,
        bridge: Any,
        chat_format: ChatFormat,
        adapters: Adapters,
        weights: Mapping[str, Tensor],
        new_cache: Callable[[], Any],
    ) -> None:
        self.ref = ref
        self.network = network
        self.bridge = bridge
        self.chat_format = chat_format
        self.tokenizer = chat_format.tokenizer
        self.n_layers: int = len(bridge.blocks)
        self.d_model: int = bridge.cfg.d_model
        config = network.config.get_text_config()
        self.context_length: int | None = getattr(config, "max_position_embeddings", None)
        self.end_ids = _end_ids(network, self.tokenizer)
        self.pad_id: int = _first(self.tokenizer.pad_token_id, *self.end_ids, 0)
        self._adapters = adapters
        self._weights = weights
        self._new_cache = new_cache
        self._hook_points: list[nn.Module] = [block.hook_out for block in bridge.blocks]

    @property
    def label(self) -> str:
        """What results call the model."""
        return self.ref.label

    @property
    def device(self) -> torch.device:
        return next(iter(self._weights.values())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self._weights.values())).dtype

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, from the first block's output to the last's."""
        return tuple(Site(layer) for layer in range(self.n_layers))

    @cached_property
    def model_hash(self) -> str:
        """16 hexadecimal digits that identify the weights, without any adapter.

        Taken over names, shapes and values rounded to bfloat16, so that a model has one hash
        whatever precision it is loaded in and wherever it was loaded from.
        """
        digest = hashlib.sha256()
        for name, weight in sorted(self._weights.items()):
            digest.update(f"{name} {tuple(weight.shape)}\n".encode())
            rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(rounded.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @property
    def chat_template_hash(self) -> str:
        """Identifies the chat template in use; "none" where there is none."""
        return self.chat_format.template_hash

    @cached_property
    def tokenizer_hash(self) -> str | None:
        """Identifies what the tokenizer does to text; `None` where it has no tokenizer.json."""
        return tokenizer_hash(self.tokenizer)

    @property
    def active_adapter(self) -> str | None:
        """Name of the adapter that is on; `None` for bare weights."""
        return self._adapters.active

    @contextmanager
    def adapter(self, name: str | None) -> Iterator[None]:
        """Run with one adapter on (`None`: bare weights); afterwards as before.

        The adapter is attached on first use and stays attached, so that switching costs nothing.

        Args:
            name: one of `ref.adapters()`, an adapter's folder, or its hub name.

        Raises:
            RequestError: there is no such adapter, or it was made for another base model.
        """
        previous = self._adapters.active
        self._adapters.switch(name)
        try:
            yield
        finally:
            self._adapters.switch(previous)

    @contextmanager
    def hooks(self, fwd: Sequence[tuple[Site, Hook]]) -> Iterator[None]:
        """Call functions on the residual stream while the block runs.

        A function gets the residual [batch, pos, d_model] at its site; what it returns takes its
        place, `None` leaves it. Functions at one site run in the order given, those of an outer
        context first. During generation `pos` is the whole prompt, then one token at a time.

        Raises:
            SiteMismatchError: the model has no such site; nothing has been hooked then.
        """
        for site, _ in fwd:
            self._require(site)
        handles = [
            self._hook_points[site.layer].register_forward_hook(_as_torch_hook(function))
            for site, function in fwd
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def stopping_at(self, site: Site | None) -> Iterator[None]:
        """End the block of code where a forward pass in it reaches this site, after its hooks.

        `None` ends nothing.
        """

        def stop(_resid: Tensor) -> None:
            raise _Stop

        with self.hooks([] if site is None else [(site, stop)]), suppress(_Stop):
            yield

    @torch.no_grad()
    def residual_forward(
        self,
        ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        position_ids: Int[Tensor, "batch pos"],
        last_site: Site,
    ) -> None:
        """Run the blocks up to `last_site`, for the hooks on them: no logits, no cache."""
        with self.stopping_at(last_site):
            self._run(ids, attention_mask, position_ids, use_cache=False)

    @torch.no_grad()
    def packed_forward(self, batch: PackedBatch, last_site: Site) -> None:
        """`residual_forward` of a packed row; the hooks get it whole, [1, token, d_model].

        Only where the model `packs`.
        """
        with packed_attention(self.network, batch.lengths), self.stopping_at(last_site):
            self.network(input_ids=batch.ids, position_ids=batch.position_ids, use_cache=False)

    @cached_property
    def short_context(self) -> int | None:
        """Up to this length, positions are encoded alike; beyond it they depend on the length.

        `None` where they never do. Rotary encodings of kind "longrope" and "dynamic" do.
        """
        rope = getattr(self.network.config.get_text_config(), "rope_parameters", None) or {}
        kinds = [x for x in rope.values() if isinstance(x, dict)] or [rope]
        limits = [
            kind.get("original_max_position_embeddings") or self.context_length
            for kind in kinds
            if kind.get("rope_type") in ("longrope", "dynamic")
        ]
        return min((limit for limit in limits if limit is not None), default=None)

    @cached_property
    def packs(self) -> bool:
        """Whether sequences may be laid end to end; tried out once, see `models.packing_trial`."""
        from persona_probe.models.packing_trial import packs

        return packs(self)

    @torch.no_grad()
    def logits(
        self,
        ids: Int[Tensor, "batch pos"],
        attention_mask: Int[Tensor, "batch pos"],
        position_ids: Int[Tensor, "batch pos"],
        keep: Literal["last"] | None = None,
    ) -> Float[Tensor, "batch kept vocab"]:
        """Next-token logits in float32, at every position or only at the batch's last one.

        "last" is the last column, so it belongs to left-padded batches.
        """
        kept = 1 if keep == "last" else 0
        output = self._run(ids, attention_mask, position_ids, use_cache=False, logits_to_keep=kept)
        logits: Tensor = output.logits
        return logits.float()

    @torch.no_grad()
    def decode_step(
        self,
        ids: Int[Tensor, "batch new"],
        attention_mask: Int[Tensor, "batch pos"],
        position_ids: Int[Tensor, "batch new"],
        cache: Any = None,
    ) -> tuple[Float[Tensor, "batch vocab"], Any]:
        """Read new tokens after those in the cache, and predict the next one.

        Args:
            ids: left-padded prompts at first, then one token per row.
            attention_mask: over everything read so far and the new tokens.
            position_ids: of the new tokens.
            cache: what the previous call returned; `None` begins. It is changed in place. Rows
                are dropped with `cache.batch_select_indices(kept)` and repeated with
                `cache.batch_repeat_interleave(times)`.

        Returns:
            Logits after the last token, in float32, and the cache.
        """
        cache = self._new_cache() if cache is None else cache
        output = self._run(
            ids,
            attention_mask,
            position_ids,
            use_cache=True,
            past_key_values=cache,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float(), cache

    def encode(self, conversation: Conversation, add_generation_prompt: bool) -> Tokens:
        """A conversation's tokens; see `models.chat.encode`."""
        return encode(self.chat_format, conversation, add_generation_prompt)

    def pad(self, rows: Sequence[Sequence[int]], side: Literal["left", "right"]) -> PaddedBatch:
        """Rows of token ids as one batch on the model's device."""
        return pad(rows, side, self.pad_id, self.device)

    def describe(self, **fields: Any) -> Provenance:
        """Provenance of results of this model in its present state, with further `fields` set."""
        about = {
            "model": self.ref.label,
            "model_hash": self.model_hash,
            "adapter": self.active_adapter,
            "adapter_hash": self._adapters.active_hash,
            "chat_template_hash": self.chat_template_hash,
            "thinking": self.chat_format.thinking,
            "tokenizer_hash": self.tokenizer_hash,
        }
        return Provenance(**{**about, **fields})

    def _run(self, ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **rest: Any) -> Any:
        return self.network(
            input_ids=ids, attention_mask=attention_mask, position_ids=position_ids, **rest
        )

    def _require(self, site: Site) -> None:
        if not 0 <= site.layer < self.n_layers:
            raise SiteMismatchError(
                f"{self.ref.label} has layers 0 to {self.n_layers - 1}, there is no {site}"
            )


def _as_torch_hook(function: Hook) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
    def hook(_module: nn.Module, _inputs: Any, resid: Tensor) -> Tensor | None:
        return function(resid)

    return hook


def _end_ids(network: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids at which generation stops: the model's own settings, and the tokenizer's."""
    configured = getattr(network.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(x for x in (*listed, tokenizer.eos_token_id) if x is not None))


def _first(*candidates: int | None) -> int:
    return next(x for x in candidates if x is not None)
