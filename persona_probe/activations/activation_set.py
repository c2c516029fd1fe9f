"""Activations with what is known about each of them."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.columns import Columns, InMemory
from persona_probe.activations.manifest import Manifest
from persona_probe.activations.rows import Row
from persona_probe.activations.store import Store
from persona_probe.display import facts
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import PARTS, Part, Split
from persona_probe.provenance import Provenance

if TYPE_CHECKING:
    from pandas import DataFrame

SHARD_BYTES = 256 * 2**20
# The setting that tells two saved sets apart that were read in the same way.
DIGEST = "values_sha256"


@dataclass(frozen=True, eq=False)
class ActivationSet:
    """One vector per example and site, pooled over one choice of token positions.

    Attributes:
        columns: where the numbers are; a set opened from a folder reads them when asked for.
        position: name of the rule by which tokens were pooled.
        ids: names of the examples.
        labels: class of each example; "" where none was given.
        families: prompt family of each example; "" where none was given.
        provenance: what made them.
        texts: what was read, for baselines that see only the surface.
        metadata: whatever else was given with each example.
    """

    columns: Columns
    position: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    families: tuple[str, ...]
    provenance: Provenance
    texts: tuple[str, ...] | None = None
    metadata: tuple[Mapping[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "labels", "families", "texts", "metadata"):
            told = getattr(self, name)
            if told is not None and len(told) != len(self.columns):
                raise RequestError(f"{len(self.columns)} activations, but {len(told)} {name}")

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "example site d_model"],
        sites: Sequence[Site],
        position: str,
        ids: Sequence[str],
        labels: Sequence[str],
        families: Sequence[str],
        provenance: Provenance,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> "ActivationSet":
        """A set in memory.

        Args:
            values: in the order of `ids` and `sites`; kept as float32.
            sites: where they were read; the others are as the class has them.
            position: name of the rule by which tokens were pooled.
            ids: names of the examples.
            labels: class of each example.
            families: prompt family of each example.
            provenance: what made them.
            texts: what was read.
            metadata: whatever else was given with each example.

        Raises:
            RequestError: the numbers of values, sites and examples do not agree.
        """
        return cls(
            columns=InMemory(values.float(), tuple(sites)),
            position=position,
            ids=tuple(ids),
            labels=tuple(labels),
            families=tuple(families),
            provenance=provenance,
            texts=None if texts is None else tuple(texts),
            metadata=None if metadata is None else tuple(metadata),
        )

    @classmethod
    def open(cls, folder: Path) -> "ActivationSet":
        """A finished store, memory-mapped: its numbers are read when they are asked for.

        Raises:
            RequestError: there is no store, it is unfinished, or its rows were changed.
            PersonaProbeError: a file of it is damaged. `Store.verify` checks every byte.
        """
        store = Store.open(folder)
        columns, rows = store.columns(), store.rows
        return cls(
            columns=columns,
            position=store.manifest.position,
            ids=tuple(row.id for row in rows),
            labels=tuple(row.label for row in rows),
            families=tuple(row.family for row in rows),
            provenance=store.manifest.provenance,
            texts=tuple(row.text for row in rows) if any(row.text for row in rows) else None,
            metadata=tuple(row.metadata for row in rows) if any(r.metadata for r in rows) else None,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def _repr_html_(self) -> str:
        told = self.provenance
        classes = ", ".join(f"{name or 'no label'} {n}" for name, n in Counter(self.labels).items())
        return facts(
            "ActivationSet",
            {
                "examples": len(self),
                "sites": ", ".join(str(site.layer) for site in self.sites),
                "width": self.d_model,
                "position": self.position,
                "labels": classes,
                "prompt families": len(set(self.families)),
                "model": told.model,
                "adapter": told.adapter,
            },
        )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the residual stream was read."""
        return self.columns.sites

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.columns.d_model

    @property
    def values(self) -> Float[Tensor, "example site d_model"]:
        """Everything, in memory; a set opened from a folder reads it again each time."""
        return self.columns.dense()

    def site(self, site: Site) -> Float[Tensor, "example d_model"]:
        """All examples at one site; nothing of the other sites is read.

        Raises:
            SiteMismatchError: nothing was captured there.
        """
        return self.columns.column(site)

    def take(self, rows: Sequence[int]) -> "ActivationSet":
        """Some of the examples, in the order given; nothing is read."""

        def of(told: tuple[Any, ...] | None) -> Any:
            return None if told is None else tuple(told[row] for row in rows)

        return replace(
            self,
            columns=self.columns.take(torch.tensor(rows, dtype=torch.long)),
            ids=of(self.ids),
            labels=of(self.labels),
            families=of(self.families),
            texts=of(self.texts),
            metadata=of(self.metadata),
        )

    def where(
        self,
        labels: Collection[str] | None = None,
        families: Collection[str] | None = None,
    ) -> "ActivationSet":
        """The examples with one of the labels and one of the families; `None` allows all."""
        kept = [
            i
            for i, (label, family) in enumerate(zip(self.labels, self.families, strict=True))
            if (labels is None or label in labels) and (families is None or family in families)
        ]
        return self.take(kept)

    def split(self, split: Split) -> dict[Part, "ActivationSet"]:
        """The examples for finding, for selecting and for evaluating, by prompt family.

        Raises:
            RequestError: a family is not in the split.
        """
        parts = {family: split.part_of(family) for family in dict.fromkeys(self.families)}
        return {
            part: self.where(families=[f for f, of in parts.items() if of == part])
            for part in PARTS
        }

    def with_values(self, values: Float[Tensor, "example site d_model"]) -> "ActivationSet":
        """The same examples at the same sites with other numbers."""
        return replace(self, columns=InMemory(values.float(), self.sites))

    def batches(self, n: int) -> Iterator["ActivationSet"]:
        """The examples in order, at most `n` at a time."""
        for start in range(0, len(self), n):
            yield self.take(range(start, min(start + n, len(self))))

    def to_numpy(self) -> Float[np.ndarray, "example site d_model"]:
        """`values` as an array."""
        array: np.ndarray = self.values.numpy()
        return array

    def to_frame(self) -> "DataFrame":
        """One line per example: id, label, family, text, then a column per key of the metadata.

        A key of the metadata with one of the first four names is called `metadata.<key>`.
        """
        from pandas import DataFrame

        told: dict[str, Sequence[Any]] = {
            "id": self.ids,
            "label": self.labels,
            "family": self.families,
            "text": self.texts or [""] * len(self),
        }
        known = tuple(told)
        metadata = self.metadata or ()
        for key in dict.fromkeys(key for about in metadata for key in about):
            name = f"metadata.{key}" if key in known else key
            told[name] = [about.get(key) for about in metadata]
        return DataFrame(told)

    def save(self, folder: Path, dtype: str = "float32") -> Path:
        """Write a finished store, or finish writing it.

        A set read in the same way and with other numbers is replaced; anything else that is
        there is refused, as `Store.begin` does.

        Args:
            folder: a folder of its own.
            dtype: "float32" or "float16".

        Raises:
            RequestError: the folder holds other activations; or the sites are not in order.
            PersonaProbeError: an activation is NaN, infinite or beyond float16's range.
        """
        per_shard = max(1, SHARD_BYTES // (4 * len(self.sites) * self.d_model))
        full, rest = divmod(len(self), per_shard)
        sizes = (per_shard,) * full + ((rest,) if rest else ())
        manifest = Manifest(
            position=self.position,
            sites=self.sites,
            d_model=self.d_model,
            dtype=dtype,
            shards=sizes,
            provenance=self.provenance,
            settings={DIGEST: self._digest(per_shard)},
        )
        store = Store.begin(folder, manifest, self._rows(), replaceable=(f"setting {DIGEST!r}",))
        for shard in store.missing():
            start = store.manifest.starts[shard]
            store.write(shard, self.take(range(start, start + sizes[shard])).values)
        return folder

    def _rows(self) -> list[Row]:
        texts = self.texts or ("",) * len(self)
        metadata = self.metadata or ({},) * len(self)
        columns = (self.ids, self.labels, self.families, texts, metadata)
        return [Row(*told) for told in zip(*columns, strict=True)]

    def _digest(self, batch: int) -> str:
        digest = hashlib.sha256()
        for part in self.batches(batch):
            digest.update(part.values.contiguous().numpy().data)
        return digest.hexdigest()
