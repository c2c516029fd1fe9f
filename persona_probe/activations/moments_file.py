"""Moments on disk, which grow shard by shard as a store does.

    FOLDER/moments.safetensors   float64 tensors, and a header that says what they are of

`mean_{layer}` is [group, d_model] in the order of the header's groups, `scatter_{layer}` is
[label, d_model, d_model] in the order of the sorted labels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.manifest import Manifest, difference, parse_manifest
from persona_probe.activations.moments import Group, Moments
from persona_probe.activations.rows import Row, hash_rows
from persona_probe.errors import RequestError
from persona_probe.files import read_tensors, remove_leftovers, write_tensors

FILE = "moments.safetensors"
HEADER = "persona_probe"


@dataclass(frozen=True)
class MomentsFile:
    """Moments of some shards of what a manifest describes.

    Attributes:
        folder: where they are, or will be.
        manifest: what was or is to be read.
        rows_hash: hash of its rows; see `hash_rows`.
        shards: the shards that are in.
        moments: of them.
    """

    folder: Path
    manifest: Manifest
    rows_hash: str
    shards: frozenset[int]
    moments: Moments

    @classmethod
    def begin(
        cls, folder: Path, manifest: Manifest, rows: Sequence[Row], covariance: bool
    ) -> "MomentsFile":
        """Empty moments, or those that an earlier run left in the folder.

        Raises:
            RequestError: the folder holds other moments; the message says what differs.
        """
        nothing = Moments(
            manifest.sites, manifest.d_model, manifest.position, {}, {} if covariance else None
        )
        wanted = cls(folder, manifest, hash_rows(rows), frozenset(), nothing)
        remove_leftovers(folder)
        if not (folder / FILE).exists():
            return wanted
        there = cls.open(folder)
        there._require_same(wanted)
        return there

    @classmethod
    def open(cls, folder: Path) -> "MomentsFile":
        """What `save` wrote.

        Raises:
            RequestError: there is no such file, or it was written by something else.
        """
        path = folder / FILE
        tensors, metadata = read_tensors(path)
        try:
            header = json.loads(metadata[HEADER])
            manifest, rows_hash = parse_manifest(header["manifest"], path)
            moments = _moments(header, manifest, tensors)
            return cls(folder, manifest, rows_hash, frozenset(header["shards"]), moments)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise RequestError(
                f"{path} holds no moments of ours ({error!r}); delete it and extract them again"
            ) from None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What other moments must agree with to be of the same."""
        covariance = self.moments.scatter is not None
        return self.manifest.identity(self.rows_hash) | {"covariance": covariance}

    def missing(self) -> list[int]:
        """The shards that are not in yet."""
        return [k for k in range(len(self.manifest.shards)) if k not in self.shards]

    def finished(self) -> Moments:
        """The moments of everything.

        Raises:
            RequestError: shards are missing.
        """
        if missing := self.missing():
            raise RequestError(
                f"{self.folder / FILE} is unfinished: {len(missing)} of "
                f"{len(self.manifest.shards)} shards are missing; run the same extract command "
                "again to continue it"
            )
        return self.moments

    def with_shard(
        self, shard: int, values: Float[Tensor, "example site d_model"], rows: Sequence[Row]
    ) -> "MomentsFile":
        """These and one shard more; the same, if it is in already.

        Args:
            shard: its number.
            values: in the order of the shard's rows.
            rows: of the shard.

        Raises:
            PersonaProbeError: an activation is NaN or infinite.
        """
        if shard in self.shards:
            return self
        if len(rows) != self.manifest.shards[shard]:
            raise ValueError(f"{len(rows)} rows for shard {shard}")
        found = Moments.of(
            values,
            [row.label for row in rows],
            [row.family for row in rows],
            self.manifest.sites,
            self.manifest.position,
            covariance=self.moments.scatter is not None,
        )
        return replace(self, shards=self.shards | {shard}, moments=self.moments.merged(found))

    @classmethod
    def joined(cls, folder: Path, parts: Sequence[Path]) -> "MomentsFile":
        """The moments of several folders, each of which read some of the shards.

        They equal those of a single run up to rounding in float64.

        Args:
            folder: where they are to be saved.
            parts: the other folders; they stay as they are.

        Raises:
            RequestError: the parts are not of the same, a shard is in two of them, or `folder`
                holds other moments already.
        """
        found = sorted(map(cls.open, parts), key=lambda part: sorted(part.shards))
        result = replace(found[0], folder=folder)
        if (folder / FILE).exists():
            cls.open(folder)._require_same(result)
        for part in found[1:]:
            part._require_same(result)
            if both := result.shards & part.shards:
                raise RequestError(
                    f"{part.folder / FILE} holds shard {min(both)}, which another part holds too; "
                    "join every part once"
                )
            result = replace(
                result,
                shards=result.shards | part.shards,
                moments=result.moments.merged(part.moments),
            )
        return result

    def save(self) -> Path:
        """Write everything, whole."""
        moments = self.moments
        header = {
            "manifest": self.manifest.to_json(self.rows_hash),
            "shards": sorted(self.shards),
            "covariance": moments.scatter is not None,
            "groups": [[*key, group.n] for key, group in moments.groups.items()],
        }
        tensors = {}
        for i, site in enumerate(moments.sites):
            means = [group.mean[i] for group in moments.groups.values()]
            if means:
                tensors[f"mean_{site.layer}"] = torch.stack(means)
            if moments.scatter:
                several = [moments.scatter[label][i] for label in moments.labels]
                tensors[f"scatter_{site.layer}"] = torch.stack(several)
        return write_tensors(self.folder / FILE, tensors, {HEADER: json.dumps(header)})

    def _require_same(self, other: "MomentsFile") -> None:
        if told := difference(self.identity, other.identity):
            raise RequestError(
                f"{self.folder / FILE} holds other moments, with {told}; choose another folder"
            )


def _moments(
    header: Mapping[str, Any], manifest: Manifest, tensors: Mapping[str, Tensor]
) -> Moments:
    """From what `save` wrote; any malformed part of it raises a KeyError or the like."""
    sites, d_model = manifest.sites, manifest.d_model
    told = [(label, family, n) for label, family, n in header["groups"]]
    means = torch.empty(len(told), len(sites), d_model, dtype=torch.float64)
    for i, site in enumerate(sites if told else ()):
        means[:, i] = _of_shape(tensors[f"mean_{site.layer}"], (len(told), d_model))
    groups = {
        (label, family): Group(n, mean)
        for (label, family, n), mean in zip(told, means, strict=True)
    }
    moments = Moments(sites, d_model, manifest.position, groups)
    if not header["covariance"]:
        return moments
    labels = moments.labels
    shape = (len(labels), d_model, d_model)
    several = [_of_shape(tensors[f"scatter_{s.layer}"], shape) for s in sites if labels]
    scatter = {label: torch.stack([at[i] for at in several]) for i, label in enumerate(labels)}
    return replace(moments, scatter=scatter)


def _of_shape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"shape {tuple(tensor.shape)} instead of {shape}")
    return tensor
