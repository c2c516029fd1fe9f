"""Directions of activations that were never stored, from their moments."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.moments import Moments
from persona_probe.activations.moments_file import FILE as MOMENTS
from persona_probe.activations.moments_file import MomentsFile
from persona_probe.activations.store import MANIFEST
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import Finder, MomentsFinder, direction_between
from persona_probe.directions.finders import FINDERS
from persona_probe.directions.per_label import wanted_labels
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split, split_families
from persona_probe.provenance import Provenance


def find_from_moments(
    moments: Moments,
    finder: Finder,
    positive_label: str,
    negative_label: str,
    provenance: Provenance,
    *,
    family: str = "prompt_in_H",
    split: Split | None = None,
) -> dict[Site, Direction]:
    """The direction per site that `find_directions` finds in the activations themselves.

    Equal up to the rounding of float64, but for `Direction.norm`: a median cannot be streamed, so
    it is the mean length of the negative class's activations.

    Args:
        moments: of the activations.
        finder: one that moments are enough for.
        positive_label: label of the class to point to.
        negative_label: label of the class to point away from.
        provenance: of the activations.
        family: which contrast this is; see `Direction.family`.
        split: find on its find part only; on everything if not given.

    Raises:
        RequestError: the finder needs the activations themselves, or covariances that these
            moments do not hold for these families.
        DegenerateClassesError: a class is empty, or the classes coincide at a site.
    """
    if not isinstance(finder, MomentsFinder):
        enough = [name for name, of in FINDERS.items() if hasattr(of, "of_moments")]
        raise RequestError(
            f"{finder.label} needs every example, and here are only moments; use "
            f"{', '.join(enough)}, or extract with --store"
        )
    families = None if split is None else split.find
    positive = moments.group(positive_label, families)
    negative = moments.group(negative_label, families)
    raw = finder.of_moments(positive, negative)
    unit = raw / raw.norm(dim=1, keepdim=True)
    turn = torch.where((unit * (positive.mean - negative.mean)).sum(dim=1) < 0, -1.0, 1.0)
    unit = unit * turn[:, None]
    provenance = provenance if split is None else provenance.with_(split_hash=split.hash)
    return {
        site: direction_between(
            unit[i],
            float(unit[i] @ positive.mean[i]),
            float(unit[i] @ negative.mean[i]),
            site=site,
            norm=float(negative.norm[i]),
            finder=finder.label,
            family=family,
            persona=positive_label,
            position=moments.position,
            provenance=provenance,
            split_hash=provenance.split_hash,
            families_used=_families(moments, (positive_label, negative_label), families),
            positive_label=positive_label,
            negative_label=negative_label,
        )
        for i, site in enumerate(moments.sites)
    }


def find_per_label_from_moments(
    file: MomentsFile,
    finder: Finder,
    negative: str,
    positive: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[Site, Direction]]:
    """`find_per_label` where only moments were kept.

    Args:
        file: the moments.
        finder: one that moments are enough for.
        negative: label of the class to point away from.
        positive: labels to point to; every other label if not given.
        seed: of the split.

    Raises:
        RequestError: a label does not occur, shards are missing, or see `find_from_moments`.
    """
    moments = file.finished()
    wanted = wanted_labels(moments.labels, negative, positive)
    split = split_families({family for _, family in moments.groups}, seed)
    return {
        label: find_from_moments(
            moments, finder, label, negative, file.manifest.provenance, split=split
        )
        for label in wanted
    }


def opened(folder: Path) -> ActivationSet | MomentsFile:
    """What `extract` left in a folder: the activations, or their moments where only those are.

    Raises:
        RequestError: the folder holds neither, or what it holds is unfinished.
    """
    if (folder / MOMENTS).exists() and not (folder / MANIFEST).exists():
        return MomentsFile.open(folder)
    return ActivationSet.open(folder)


def _families(
    moments: Moments, labels: Collection[str], chosen: Collection[str] | None
) -> frozenset[str]:
    return frozenset(
        family
        for label, family in moments.groups
        if label in labels and (chosen is None or family in chosen)
    )
