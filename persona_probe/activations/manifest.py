"""What a store of activations holds, and whether two stores hold the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.files import read_json
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance, content_hash

FORMAT = 1
DTYPES = {"float32": torch.float32, "float16": torch.float16}
KEYS = {"position", "sites", "d_model", "dtype", "shards", "provenance", "settings", "rows_hash"}
# How a difference is called; other fields of the provenance go by their own names.
WORDS = {
    "model_hash": "model weights",
    "adapter_hash": "adapter weights",
    "chat_template_hash": "chat template",
    "tokenizer_hash": "tokenizer",
    "prompts_hash": "prompts",
    "split_hash": "split",
}
# Recorded, but no reason to refuse: they do not say what was read.
NOT_COMPARED = ("versions", "command")
SHOWN = 60  # characters of a differing value


@dataclass(frozen=True)
class Manifest:
    """Everything that decides which numbers a store holds, and how they are cut into files.

    Attributes:
        position: name of the rule by which tokens were pooled into rows.
        sites: where the residual stream was read, in order of depth.
        d_model: width of the residual stream.
        dtype: "float32" or "float16".
        shards: rows per shard, in order.
        provenance: the model, the prompts and the versions.
        settings: whatever else decides the numbers; plain JSON.
    """

    position: str
    sites: tuple[Site, ...]
    d_model: int
    dtype: str
    shards: tuple[int, ...]
    provenance: Provenance
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RequestError(
                f"activations are stored as {' or '.join(DTYPES)}, not as {self.dtype!r}"
            )
        if not self.sites or list(self.sites) != sorted(set(self.sites)):
            raise RequestError(
                "the sites of a store are named once each and in order of depth, not as "
                f"{[site.layer for site in self.sites]}"
            )

    @property
    def n(self) -> int:
        """Number of rows."""
        return sum(self.shards)

    @property
    def starts(self) -> tuple[int, ...]:
        """First row of each shard."""
        return tuple(accumulate((0, *self.shards)))[:-1]

    def identity(self, rows_hash: str) -> dict[str, Any]:
        """What must agree for two stores to hold the same, in the words of a message."""
        provenance = self.provenance.to_json()
        return {
            **{
                WORDS.get(name, name): value
                for name, value in provenance.items()
                # A field that came later is none in older files: no reason to call them others.
                if name not in NOT_COMPARED and value is not None
            },
            "position": self.position,
            "sites": [site.layer for site in self.sites],
            "d_model": self.d_model,
            "dtype": self.dtype,
            **{
                f"setting {name!r}": json.loads(json.dumps(self.settings[name]))
                for name in sorted(self.settings)
            },
            "rows per shard": list(self.shards),
            "rows (ids, labels, families, texts, metadata)": rows_hash,
        }

    def to_json(self, rows_hash: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "n": self.n,
            "rows_hash": rows_hash,
            "position": self.position,
            "sites": [site.layer for site in self.sites],
            "d_model": self.d_model,
            "dtype": self.dtype,
            "shards": list(self.shards),
            "settings": dict(self.settings),
            "provenance": self.provenance.to_json(),
        }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that every shard carries."""
    return content_hash(identity)


def difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first difference between two identities in words, with both values."""
    for name in dict.fromkeys([*there, *wanted]):
        if there.get(name) != wanted.get(name):
            return f"{name} {_short(there.get(name))} instead of {_short(wanted.get(name))}"
    return None


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """A manifest and the hash of the rows that belong to it.

    Raises:
        RequestError: the file is missing, is not a manifest, or is of another format.
    """
    return parse_manifest(read_json(path), path)


def parse_manifest(value: Any, path: Path) -> tuple[Manifest, str]:
    """A manifest from `Manifest.to_json`, and the hash of the rows that belong to it.

    Args:
        value: JSON.
        path: where it was found, for messages.

    Raises:
        RequestError: it is not a manifest, or is of another format.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT or KEYS - value.keys():
        raise RequestError(
            f"{path} is no manifest of format {FORMAT}; delete the folder and extract it again"
        )
    manifest = Manifest(
        position=value["position"],
        sites=tuple(Site(layer) for layer in value["sites"]),
        d_model=value["d_model"],
        dtype=value["dtype"],
        shards=tuple(value["shards"]),
        provenance=Provenance.from_json(value["provenance"]),
        settings=value["settings"],
    )
    return manifest, value["rows_hash"]


def _short(value: Any) -> str:
    text = "none" if value is None else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
