"""Who drafts, criticises and revises: a local model, or one behind an endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from persona_probe.errors import RequestError
from persona_probe.evaluation.endpoint import Endpoint
from persona_probe.models.chat import Conversation
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate


@runtime_checkable
class Writer(Protocol):
    """Continues conversations that end with a user's turn."""

    @property
    def identity(self) -> dict[str, Any]:
        """Who writes, for lineage: everything that decides what is written."""
        ...

    def write(self, conversations: Sequence[Conversation], what: str) -> list[str]:
        """One reply each; `what` names the work for the progress bar."""
        ...


@dataclass(frozen=True)
class LocalWriter:
    """A loaded model, in common batches.

    Attributes:
        model: left as it was found.
        adapter: LoRA adapter that writes; `None` for the bare weights.
        max_new_tokens: room for a reply.
        temperature: 0 takes the likeliest token.
        seed: of the samples.
    """

    model: ResidualModel
    adapter: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.7
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        with self.model.adapter(self.adapter):
            about = self.model.describe().to_json()
        kept = ("model", "model_hash", "adapter", "adapter_hash", "chat_template_hash")
        return {key: about[key] for key in kept} | {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
        }

    def write(self, conversations: Sequence[Conversation], what: str) -> list[str]:
        arms = [Arm("writer", adapter=self.adapter)]
        written = generate(
            self.model,
            conversations,
            arms,
            self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            description=what,
        )
        return [completion.text.strip() for completion in written]


@dataclass(frozen=True)
class EndpointWriter:
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        endpoint: where.
        max_new_tokens: room for a reply.
        temperature: of sampling.
        seed: passed on; what an endpoint makes of it is its own affair.
    """

    endpoint: Endpoint
    max_new_tokens: int = 256
    temperature: float = 0.7
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "model": self.endpoint.model,
            "endpoint": True,
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
        }

    def write(self, conversations: Sequence[Conversation], what: str) -> list[str]:
        del what
        requests = [
            [{"role": m.role, "content": m.content} for m in c.messages] for c in conversations
        ]
        texts = self.endpoint.complete(
            requests,
            temperature=self.temperature,
            max_tokens=self.max_new_tokens,
            seed=self.seed,
        )
        return [text.strip() for text in texts]


def writer_named(
    model: str,
    adapter: str | None = None,
    endpoint: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **settings: Any,
) -> Writer:
    """A local model, or the model of this name behind an endpoint.

    Args:
        model: folder or hub name; with `endpoint`, the name that it knows the model by.
        adapter: LoRA adapter that writes.
        endpoint: address of an OpenAI-compatible API.
        device: of a local model, and so is the dtype.
        dtype: see `load_model`.
        settings: fields of the writer: max_new_tokens, temperature, seed.

    Raises:
        RequestError: there is no such model or adapter, or the model has no chat template.
    """
    if endpoint is not None:
        if adapter is not None:
            raise RequestError("an endpoint serves whole models; leave the adapter out")
        return EndpointWriter(Endpoint(endpoint, model), **settings)
    ref = ModelRef(model)
    if adapter is not None:
        ref.adapter_source(adapter)
    loaded = load_model(ref, device=device, dtype=dtype)
    if not loaded.chat_format.template:
        raise RequestError(
            f"{loaded.label} has no chat template, so it cannot hold the conversation that "
            "criticises and revises; take the chat version of the model, or put a "
            "chat_template.jinja into its folder"
        )
    return LocalWriter(loaded, adapter, **settings)
