"""Activations with what is known about each of them."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.files import read_tensors, write_tensors
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance

FILE = "activations.safetensors"
HEADER = "persona_probe"
HEADER_KEYS = {"position", "ids", "labels", "families", "texts", "provenance"}


@dataclass(frozen=True, eq=False)
class ActivationSet:
    """One vector per example and site, pooled over one choice of token positions.

    Attributes:
        values: float32 residuals, in the order of `ids` and `sites`.
        sites: where they were read.
        position: name in `POSITIONS` of the tokens they stand for.
        ids: names of the examples.
        labels: class of each example; "" where none was given.
        families: prompt family of each example; "" where none was given.
        provenance: what made them.
        texts: what was read, for baselines that see only the surface.
    """

    values: Float[Tensor, "example site d_model"]
    sites: tuple[Site, ...]
    position: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    families: tuple[str, ...]
    provenance: Provenance
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        examples, sites = self.values.shape[:2]
        columns = {"ids": self.ids, "labels": self.labels, "families": self.families}
        if self.texts is not None:
            columns["texts"] = self.texts
        for name, column in columns.items():
            if len(column) != examples:
                raise RequestError(f"{examples} activations, but {len(column)} {name}")
        if len(self.sites) != sites:
            raise RequestError(f"activations at {sites} sites, but {len(self.sites)} sites named")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.values.shape[-1]

    def site(self, site: Site) -> Float[Tensor, "example d_model"]:
        """All examples at one site.

        Raises:
            SiteMismatchError: nothing was captured there.
        """
        if site not in self.sites:
            there = ", ".join(str(s.layer) for s in self.sites)
            raise SiteMismatchError(f"nothing was captured at {site}, only at layers {there}")
        return self.values[:, self.sites.index(site)]

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
        return replace(
            self,
            values=self.values[kept],
            ids=tuple(self.ids[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
            families=tuple(self.families[i] for i in kept),
            texts=None if self.texts is None else tuple(self.texts[i] for i in kept),
        )

    def save(self, folder: Path) -> Path:
        """Write one file: a tensor `site_{layer}` [example, d_model] per site, a JSON header."""
        header = {
            "position": self.position,
            "ids": self.ids,
            "labels": self.labels,
            "families": self.families,
            "texts": self.texts,
            "provenance": self.provenance.to_json(),
        }
        # Cloned, because safetensors refuses views of one memory.
        tensors = {f"site_{s.layer}": self.values[:, i].clone() for i, s in enumerate(self.sites)}
        return write_tensors(folder / FILE, tensors, {HEADER: json.dumps(header)})

    @classmethod
    def load(cls, folder: Path) -> "ActivationSet":
        """Read what `save` wrote.

        Raises:
            RequestError: there is no such file, it was written by something else, its tensors do
                not match its header, or an activation is NaN or infinite.
        """
        path = folder / FILE
        tensors, metadata = read_tensors(path)
        header = json.loads(metadata.get(HEADER, "{}"))
        if missing := HEADER_KEYS - header.keys():
            raise RequestError(
                f"{path} has no header of ours (no {min(missing)!r} in it); capture it again"
            )
        sites = _sites(tensors, path)
        columns = [tensors[f"site_{site.layer}"] for site in sites]
        shapes = {tuple(column.shape) for column in columns}
        if len(shapes) != 1 or columns[0].ndim != 2 or len(columns[0]) != len(header["ids"]):
            raise RequestError(
                f"{path} holds tensors of shapes {sorted(shapes)} for {len(header['ids'])} "
                "examples; capture it again"
            )
        for site, column in zip(sites, columns, strict=True):
            if not torch.isfinite(column).all():
                raise RequestError(f"{path} holds NaN or infinity at {site}; capture it again")
        texts = header["texts"]
        return cls(
            values=torch.stack(columns, dim=1).float(),
            sites=tuple(sites),
            position=header["position"],
            ids=tuple(header["ids"]),
            labels=tuple(header["labels"]),
            families=tuple(header["families"]),
            provenance=Provenance.from_json(header["provenance"]),
            texts=None if texts is None else tuple(texts),
        )


def _sites(tensors: Collection[str], path: Path) -> list[Site]:
    """The sites that tensors are named after."""
    strange = [name for name in tensors if not re.fullmatch(r"site_\d+", name)]
    if strange:
        raise RequestError(f"{path} holds a tensor {strange[0]!r}, which is not one of ours")
    return sorted(Site(int(name.removeprefix("site_"))) for name in tensors)
