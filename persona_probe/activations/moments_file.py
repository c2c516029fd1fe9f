"""Moments on disk, which grow shard by shard as a store does.

    FOLDER/moments.safetensors   float64 tensors, and a header that says what they are of

`mean_{layer}` is [group, d_model] and `norm_{layer}` [group] in the order of the header's groups;
`scatter_{layer}` [block, d_model, d_model], `third_{layer}` [block, d_model] and `fourth_{layer}`
[block] in the order of the header's blocks; see `Spread`.
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
from persona_probe.activations.spread import Spread
from persona_probe.errors import RequestError
from persona_probe.files import read_tensors, remove_leftovers, write_tensors
from persona_probe.personas.splits import split_families

FILE = "moments.safetensors"
SPREAD = ("scatter", "third", "fourth")
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
        # So that what is found on the find part of the default split has seen nothing else.
        held_out = frozenset(row.family for row in rows)
        held_out -= split_families(held_out, seed=0).find
        nothing = Moments(
            manifest.sites,
            manifest.d_model,
            manifest.position,
            {},
            {} if covariance else None,
            held_out if covariance else frozenset(),
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
        covariance = self.moments.spreads is not None
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
            covariance=self.moments.spreads is not None,
            apart=self.moments.apart,
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
            "covariance": moments.spreads is not None,
            "apart": sorted(moments.apart),
            "groups": [[*key, group.n] for key, group in moments.groups.items()],
            "blocks": list(moments.spreads or ()),
        }
        tensors = {}
        groups, spreads = list(moments.groups.values()), list((moments.spreads or {}).values())
        for i, site in enumerate(moments.sites):
            for name, rows in (
                ("mean", [group.mean for group in groups]),
                ("norm", [group.norm for group in groups]),
                *((name, [getattr(of, name) for of in spreads]) for name in SPREAD),
            ):
                if rows:
                    tensors[f"{name}_{site.layer}"] = torch.stack([row[i] for row in rows])
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

    def read(name: str, rows: int, *shape: int) -> list[Tensor]:
        """Of every site, stacked for each row."""
        found = [_of_shape(tensors[f"{name}_{s.layer}"], (rows, *shape)) for s in sites if rows]
        return list(torch.stack(found, dim=1)) if found else []

    told = [(label, family, n) for label, family, n in header["groups"]]
    means, norms = read("mean", len(told), d_model), read("norm", len(told))
    groups = {
        (label, family): Group(n, mean, norm)
        for (label, family, n), mean, norm in zip(told, means, norms, strict=True)
    }
    moments = Moments(sites, d_model, manifest.position, groups, None, frozenset(header["apart"]))
    if not header["covariance"]:
        return moments
    blocks = [(label, apart) for label, apart in header["blocks"]]
    n = len(blocks)
    of_each = (read("scatter", n, d_model, d_model), read("third", n, d_model), read("fourth", n))
    spreads = {key: Spread(*of) for key, *of in zip(blocks, *of_each, strict=True)}
    return replace(moments, spreads=spreads)


def _of_shape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"shape {tuple(tensor.shape)} instead of {shape}")
    return tensor
