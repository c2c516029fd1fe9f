"""Activations straight into folders: shard by shard, resumable, in bounded memory.

A shard is a run of sequences whose rows fill a quarter of a GiB; it is read, written whole, and
forgotten. What is there already is not read again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.jobs import position_folder
from persona_probe.activations.manifest import DTYPES, Manifest
from persona_probe.activations.moments_file import MomentsFile
from persona_probe.activations.reading import Reading
from persona_probe.activations.source import Here, Source
from persona_probe.activations.store import Store
from persona_probe.errors import RequestError
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.progress import progress

SHARD_BYTES = 2**28
SHARD_CONVERSATIONS = 4096
"""At most, so that little is lost where rows are small."""
COVARIANCE_BYTES = 2**30
"""Covariances are kept without being asked for as long as they fit into this."""
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Wanted:
    """What an extraction leaves behind.

    Attributes:
        store: rows on disk; without, only moments are kept.
        dtype: of the rows on disk, "float32" or "float16".
        covariance: of each label; by size, if None.
        part: (i, n) reads only every n-th shard, from the i-th on, counted from 1.
        shard_conversations: in a shard at most; what is lost when a run is stopped.
    """

    store: bool = True
    dtype: str = "float32"
    covariance: bool | None = None
    part: tuple[int, int] = (1, 1)
    shard_conversations: int = SHARD_CONVERSATIONS

    def __post_init__(self) -> None:
        number, parts = self.part
        if not 1 <= number <= parts:
            raise RequestError(f"shard {number}/{parts}: count from 1/{parts} to {parts}/{parts}")


@dataclass(frozen=True)
class Extracted:
    """One folder that an extraction filled: one state of the model at one position."""

    folder: Path
    adapter: str | None
    position: str
    rows: int
    new_rows: int


def shards_of(reading: Reading, n_sites: int, d_model: int, most: int) -> list[range]:
    """Runs of at most `most` sequences, whose rows of all positions fit into `SHARD_BYTES`."""
    shards, first, filled = [], 0, 0
    for i in range(len(reading)):
        rows = sum(len(per_sequence[i]) for per_sequence in reading.groups.values())
        size = rows * n_sites * d_model * 4
        if i > first and (filled + size > SHARD_BYTES or i - first == most):
            shards.append(range(first, i))
            first, filled = i, 0
        filled += size
    return [*shards, range(first, len(reading))]


def extract(
    source: Source | ResidualModel,
    reading: Reading,
    sites: Sequence[Site],
    states: Mapping[str, str | None],
    out: Path,
    wanted: Wanted | None = None,
    description: str = "extracting",
) -> list[Extracted]:
    """Read every sequence in every state of the model, into `out/STATE/POSITION`.

    All states read the same token ids in the same batches. A second call with the same arguments
    goes on where the first one was stopped.

    Args:
        source: a loaded model, or one elsewhere.
        reading: what to read; see `activations.reading.read`.
        sites: where.
        states: folder name → LoRA adapter; `None` is the bare weights.
        out: folder of the folders.
        wanted: what to leave behind; everything in float32, if not given.
        description: shown with the progress bar.

    Returns:
        What is in each folder, also of earlier calls.

    Raises:
        RequestError: a folder holds something else; the message says what differs.
        PersonaProbeError: an activation is NaN, infinite or beyond float16, or the disk is full.
            What was finished before is kept.
    """
    wanted = wanted or Wanted()
    source = Here(source) if isinstance(source, ResidualModel) else source
    depth = tuple(sorted(set(sites)))
    shards = shards_of(reading, len(depth), source.d_model, wanted.shard_conversations)
    number, parts = wanted.part
    mine = [k for k in range(len(shards)) if k % parts == number - 1]
    desks = {
        state: [
            _Desk(source, reading, shards, depth, adapter, out / state, position, wanted)
            for position in reading.positions
        ]
        for state, adapter in states.items()
    }
    todo = {
        state: [k for k in mine if any(k in desk.missing for desk in of_state)]
        for state, of_state in desks.items()
    }
    work = sum(reading.lengths[i] for ks in todo.values() for k in ks for i in shards[k])
    with progress(description, work, "tokens") as advance:
        for state, ks in todo.items():
            runs = [shards[k] for k in ks]
            found = source.values(states[state], reading, runs, depth, advance)
            for k, values in zip(ks, found, strict=True):
                for desk in desks[state]:
                    desk.take(k, values[desk.position])
            for desk in desks[state]:
                desk.close()
    return [desk.extracted() for of_state in desks.values() for desk in of_state]


class _Desk:
    """Takes the shards of one state at one position: into the store, and into moments.

    Attributes:
        position: whose rows it takes.
        missing: shards that are not in yet.
    """

    def __init__(
        self,
        source: Source,
        reading: Reading,
        shards: Sequence[range],
        sites: tuple[Site, ...],
        adapter: str | None,
        folder: Path,
        position: str,
        wanted: Wanted,
    ) -> None:
        self.position = position
        self._adapter, self._wanted = adapter, wanted
        self._rows = reading.rows[position]
        first = reading.first_rows[position]
        self._spans = [(first[shard[0]], first[shard[-1] + 1]) for shard in shards]
        folder = folder / position_folder(position)
        about = source.describe(adapter, prompts_hash=reading.hash, positions=position)
        settings = {"model_dtype": source.dtype, "tokens_of_rows": reading.groups_hash(position)}
        sizes = tuple(stop - start for start, stop in self._spans)
        manifest = Manifest(position, sites, source.d_model, wanted.dtype, sizes, about, settings)
        self._store = Store.begin(folder, manifest, self._rows) if wanted.store else None
        covariance = wanted.covariance
        if covariance is None:
            labels = len({row.label for row in self._rows})
            # Two float64 matrices each: of the find part of the split, and of the rest.
            covariance = 2 * labels * len(sites) * source.d_model**2 * 8 <= COVARIANCE_BYTES
        self._moments = MomentsFile.begin(folder, manifest, self._rows, covariance)
        self._saved = time.monotonic()
        self.missing = set(self._store.missing() if self._store else self._moments.missing())
        self._new_rows = 0
        self._catch_up()

    def _catch_up(self) -> None:
        """Add to the moments what an earlier run stored, but was stopped before it counted."""
        if self._store is None:
            return
        for k in self._moments.missing():
            if k not in self.missing:
                self._count(k, self._store.values(k))

    def take(self, k: int, values: Float[Tensor, "row site d_model"]) -> None:
        """One shard; what is in already is left as it is."""
        if k not in self.missing:
            return
        if self._store is not None:
            self._store.write(k, values)
            # As it was stored, so that a run that was stopped counts the same numbers.
            values = values.to(DTYPES[self._wanted.dtype]).float()
        self._count(k, values)
        self.missing.discard(k)
        self._new_rows += len(values)
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.close()

    def _count(self, k: int, values: Float[Tensor, "row site d_model"]) -> None:
        start, stop = self._spans[k]
        self._moments = self._moments.with_shard(k, values, self._rows[start:stop])

    def close(self) -> None:
        """Save the moments; shards are on disk already."""
        self._moments.save()
        self._saved = time.monotonic()

    def extracted(self) -> Extracted:
        folder = self._moments.folder
        n = len(self._rows)
        return Extracted(folder, self._adapter, self.position, n, self._new_rows)
