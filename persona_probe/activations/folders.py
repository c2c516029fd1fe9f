"""Everything that an extraction left under one folder, checked or joined as a whole."""

from collections.abc import Sequence
from pathlib import Path

from persona_probe.activations.moments_file import FILE as MOMENTS
from persona_probe.activations.moments_file import MomentsFile
from persona_probe.activations.store import MANIFEST, Store
from persona_probe.errors import RequestError
from persona_probe.progress import track


def folders_in(out: Path) -> list[Path]:
    """The folders under `out`, itself included, that hold activations or moments.

    Raises:
        RequestError: there is none.
    """
    found = {path.parent for name in (MANIFEST, MOMENTS) for path in out.rglob(name)}
    if not found:
        raise RequestError(f"{out} holds no activations (no {MANIFEST} in it or below)")
    return sorted(found)


def verify_folders(out: Path) -> dict[str, int]:
    """Check every checksum, and that nothing is missing; the number of shards by folder.

    Raises:
        PersonaProbeError: a file is missing or not as it was written.
    """
    found = folders_in(out)
    shards = {}
    for folder in track(found, "Verifying", len(found)):
        name = str(folder.relative_to(out))
        if (folder / MANIFEST).exists():
            shards[name] = Store.open(folder).verify().shards
        if (folder / MOMENTS).exists():
            moments = MomentsFile.open(folder)
            moments.finished()
            shards.setdefault(name, len(moments.shards))
    return shards


def merge_folders(out: Path, parts: Sequence[Path]) -> dict[str, int]:
    """Join what several machines extracted, each its own part, and verify the whole.

    Args:
        out: folder for the whole.
        parts: folders of all parts; they stay as they are.

    Raises:
        RequestError: parts hold different activations, or nothing.
        PersonaProbeError: a shard is damaged, or missing from all parts.
    """
    names = sorted({folder.relative_to(part) for part in parts for folder in folders_in(part)})
    for name in track(names, "Merging", len(names)):
        stores = [part / name for part in parts if (part / name / MANIFEST).exists()]
        for folder in stores:
            there = Store.open(folder)
            Store.begin(out / name, there.manifest, there.rows).merge(folder)
        moments = [part / name for part in parts if (part / name / MOMENTS).exists()]
        if moments:
            MomentsFile.joined(out / name, moments).save()
    return verify_folders(out)
