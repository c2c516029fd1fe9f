"""Activations on disk: shards of safetensors, written whole and checked one by one.

    FOLDER/manifest.json            what is in it; see `Manifest`
    FOLDER/rows.jsonl               what is known of each row; see `Row`
    FOLDER/shard-00000.safetensors  one tensor `site_{layer}` [rows, d_model] per site
    FOLDER/shard-00000.json         its checksum; a shard without this file is not there

Every file appears whole or not at all, and a shard's checksum after its tensors. Killing the
writer at any moment therefore costs the shard being written, and the same calls go on from there
to the same bytes.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import copyfile
from typing import Any

from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.checksum import Checksum, Verification
from persona_probe.activations.columns import Columns, Joined, Shard, cure, tensor_name
from persona_probe.activations.finite import require_finite, within_float16
from persona_probe.activations.manifest import Manifest, difference, fingerprint, read_manifest
from persona_probe.activations.rows import Row, hash_rows, read_rows, write_rows
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import (
    make_folder,
    remove_leftovers,
    sha256,
    whole,
    write_json,
    write_tensors,
)

__all__ = ["MANIFEST", "Manifest", "Store", "Verification"]

MANIFEST, ROWS = "manifest.json", "rows.jsonl"
HEADER = "persona_probe"


@dataclass(frozen=True)
class Store:
    """One folder: one state of a model, read at one position.

    Attributes:
        folder: where it is.
        manifest: what is in it, or will be.
        rows_hash: hash of its rows; see `hash_rows`.
    """

    folder: Path
    manifest: Manifest
    rows_hash: str

    @classmethod
    def begin(
        cls,
        folder: Path,
        manifest: Manifest,
        rows: Sequence[Row],
        replaceable: Collection[str] = (),
    ) -> "Store":
        """Create a store, or go on with the one that is there.

        Args:
            folder: a folder of its own; what killed writers left in it is removed.
            manifest: what the store is to hold.
            rows: one per row of the store, in order.
            replaceable: names in `Manifest.identity`. A store that differs in nothing else is
                deleted rather than refused.

        Raises:
            RequestError: the folder holds other activations (the message says what differs), or
                cannot be written to.
        """
        if len(rows) != manifest.n:
            raise ValueError(f"{len(rows)} rows for shards of {manifest.n} rows")
        store = cls(folder, manifest, hash_rows(rows))
        make_folder(folder)
        if (folder / MANIFEST).exists():
            store = cls.open(folder)._resumed_as(store, replaceable)
        elif any(folder.glob("shard-*")):
            raise RequestError(
                f"{folder} holds shards without a {MANIFEST}; choose another folder, or delete it"
            )
        remove_leftovers(folder)
        if not (folder / MANIFEST).exists():
            write_rows(folder / ROWS, rows)
            write_json(folder / MANIFEST, manifest.to_json(store.rows_hash))
        elif not (folder / ROWS).exists():
            write_rows(folder / ROWS, rows)
        else:
            store._read_rows()
        return store

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """A store as it is, finished or not.

        Raises:
            RequestError: there is none.
        """
        if not (folder / MANIFEST).is_file():
            raise RequestError(f"{folder} holds no activations (no {MANIFEST}); extract them first")
        return cls(folder, *read_manifest(folder / MANIFEST))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What another store must agree with to hold the same."""
        return self.manifest.identity(self.rows_hash)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that every shard carries."""
        return fingerprint(self.identity)

    @cached_property
    def rows(self) -> list[Row]:
        """What is known of each row.

        Raises:
            RequestError: `rows.jsonl` is missing or was changed.
        """
        return self._read_rows()

    def tensors(self, shard: int) -> Path:
        """The file of a shard's tensors."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def missing(self) -> list[int]:
        """The shards that are not there yet, or not in full size."""
        return [shard for shard in range(len(self.manifest.shards)) if not self._there(shard)]

    def columns(self) -> Columns:
        """The numbers, read when they are asked for.

        Raises:
            RequestError: shards are missing.
        """
        manifest = self.manifest
        if missing := self.missing():
            raise RequestError(
                f"{self.folder} is unfinished: {len(missing)} of {len(manifest.shards)} shards "
                "are missing; run the same extract command again to continue it"
            )
        shards = [self._shard(i) for i in range(len(manifest.shards))]
        return Joined.of(shards, manifest.sites, manifest.d_model)

    def values(self, shard: int) -> Float[Tensor, "example site d_model"]:
        """The numbers of one shard, as they were stored."""
        return self._shard(shard).dense()

    def write(self, shard: int, values: Float[Tensor, "example site d_model"]) -> None:
        """Write one shard; one that is there is kept.

        Args:
            shard: its number.
            values: in the order of the shard's rows and of the sites.

        Raises:
            PersonaProbeError: an activation is NaN, infinite or beyond the range of the store's
                dtype (the message names its row and site), or the disk is full.
        """
        manifest, first = self.manifest, self.manifest.starts[shard]
        wanted = (manifest.shards[shard], len(manifest.sites), manifest.d_model)
        if values.shape != wanted:
            raise ValueError(f"shard {shard} is of shape {wanted}, not {tuple(values.shape)}")
        if self._there(shard):
            return

        def name(row: int) -> str:
            return self.rows[first + row].id

        require_finite(values, name, manifest.sites)
        narrow = manifest.dtype == "float16"
        stored = within_float16(values, name, manifest.sites) if narrow else values.float()
        header = {
            "shard": shard,
            "first": first,
            "rows": manifest.shards[shard],
            "fingerprint": self.fingerprint,
        }
        path = write_tensors(
            self.tensors(shard),
            {tensor_name(site): stored[:, i] for i, site in enumerate(manifest.sites)},
            {HEADER: json.dumps(header)},
        )
        Checksum(
            sha256=sha256(path),
            bytes=path.stat().st_size,
            first=first,
            rows=manifest.shards[shard],
            fingerprint=self.fingerprint,
        ).write(path.with_suffix(".json"))

    def verify(self) -> Verification:
        """Read every byte.

        Raises:
            PersonaProbeError: a file is missing or is not as it was written; the message names the
                first one and what to do.
        """
        size = 0
        self._read_rows()
        for shard in range(len(self.manifest.shards)):
            tensors = self.tensors(shard)
            checksum = self._checksum(shard)
            if checksum is None:
                raise PersonaProbeError(
                    f"{tensors} is missing or unfinished; run the same extract command again"
                )
            checksum.check(tensors)
            size += checksum.bytes
        return Verification(len(self.manifest.shards), self.manifest.n, size)

    def merge(self, part: Path) -> int:
        """Take over the shards that another folder of the same activations has and this one lacks.

        Args:
            part: the other folder; it stays as it is.

        Returns:
            How many shards were taken over.

        Raises:
            RequestError: the other folder holds something else; the message says what differs.
            PersonaProbeError: a shard of it is damaged.
        """
        other = Store.open(part)
        if told := difference(other.identity, self.identity):
            raise RequestError(f"{part} cannot be merged into {self.folder}: it has {told}")
        wanted = [shard for shard in self.missing() if other._checksum(shard) is not None]
        for shard in wanted:
            source, target = other.tensors(shard), self.tensors(shard)
            checksum = Checksum.read(source.with_suffix(".json"))
            with whole(target) as temporary:
                if source.is_file():
                    copyfile(source, temporary)
                checksum.check(temporary, source)
            checksum.write(target.with_suffix(".json"))
        return len(wanted)

    def discard(self) -> None:
        """Delete the store; a shard's checksum goes first, so that no half of it is ever read."""
        for shard in range(len(self.manifest.shards)):
            self.tensors(shard).with_suffix(".json").unlink(missing_ok=True)
            self.tensors(shard).unlink(missing_ok=True)
        for name in (ROWS, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)

    def _shard(self, shard: int) -> Shard:
        manifest = self.manifest
        rows = manifest.shards[shard]
        return Shard(self.tensors(shard), rows, manifest.d_model, manifest.sites)

    def _resumed_as(self, wanted: "Store", replaceable: Collection[str]) -> "Store":
        """This store, if it is the one wanted; the one wanted, if this may be deleted for it."""
        if self.identity == wanted.identity:
            return self
        mine, theirs = (
            {name: value for name, value in store.identity.items() if name not in replaceable}
            for store in (self, wanted)
        )
        if told := difference(mine, theirs):
            raise RequestError(
                f"{self.folder} holds other activations, with {told}; choose another folder, or "
                "delete this one"
            )
        self.discard()
        return wanted

    def _checksum(self, shard: int) -> Checksum | None:
        """What was written beside the tensors of a shard; `None` if it never was."""
        path = self.tensors(shard).with_suffix(".json")
        if not path.is_file():
            return None
        checksum = Checksum.read(path)
        wanted = (self.manifest.starts[shard], self.manifest.shards[shard], self.fingerprint)
        if (checksum.first, checksum.rows, checksum.fingerprint) != wanted:
            raise PersonaProbeError(
                f"{path} is of other activations than {self.folder / MANIFEST}; {cure(path)}"
            )
        return checksum

    def _there(self, shard: int) -> bool:
        checksum = self._checksum(shard)
        return checksum is not None and checksum.fits(self.tensors(shard))

    def _read_rows(self) -> list[Row]:
        return read_rows(self.folder / ROWS, self.rows_hash)
