"""What made this file: enough to tell whether two results compare, and to make one again."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORDED_LIBRARIES = ("persona-probe", "torch", "transformers", "transformer-lens", "peft", "numpy")


def content_hash(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """16 hexadecimal digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


@cache
def library_versions() -> dict[str, str]:
    """The versions that decide numerics. No clock and no host: reruns are byte-identical."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in RECORDED_LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Provenance:
    """Where numbers came from. `None` means that the field does not apply.

    Attributes:
        model: name or folder name of the model, as the user gave it.
        model_hash: hash of configuration and weights, without any adapter.
        adapter: name of the LoRA adapter that was on, if any.
        adapter_hash: hash of its weights.
        chat_template_hash: hash of the chat template; "none" for models without one.
        thinking: thinking mode as the template was asked for it; `None` is its own default.
        tokenizer_hash: hash of the tokenizer, without its chat template.
        prompts_hash: hash of the conversations, in order.
        split_hash: hash of the split by prompt family; see `personas.splits`.
        positions: the rule by which token positions were pooled.
        seed: seed of everything random.
        command: what was asked for, in words that reproduce it.
        versions: the libraries that decide numerics.
    """

    model: str | None = None
    model_hash: str | None = None
    adapter: str | None = None
    adapter_hash: str | None = None
    chat_template_hash: str | None = None
    thinking: bool | None = None
    tokenizer_hash: str | None = None
    prompts_hash: str | None = None
    split_hash: str | None = None
    positions: str | None = None
    seed: int | None = None
    command: str | None = None
    versions: dict[str, str] = field(default_factory=library_versions)

    def with_(self, **changes: Any) -> "Provenance":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Provenance":
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**known)
