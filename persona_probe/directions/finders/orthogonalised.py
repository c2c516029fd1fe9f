"""Directions that hold nothing of what they are not meant to measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.directions.classes import class_contrast
from persona_probe.directions.design import Design
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import load_directions
from persona_probe.directions.finder import ORTHOGONAL, Finder
from persona_probe.errors import DegenerateClassesError, RequestError, SiteMismatchError
from persona_probe.models.site import Site

BySite: TypeAlias = Mapping[Site, Direction]

INDEPENDENT = 1e-6  # smallest singular value of unit nuisances that still counts as a direction
REMAINS = 1e-6  # of the difference of means, below which nothing is left to be found


@dataclass(frozen=True)
class Orthogonalised(Finder):
    """What another finder finds once some nuisance directions are taken out of the activations.

    The activations are projected onto the orthogonal complement of the nuisances, the finder sees
    only that, and its result is projected once more: a probe or a discriminant uses the remaining
    axes as well as it can, in place of merely losing a component. For the difference of means both
    are the same.

    Nuisances are directions found beforehand: of refusal, length, format, topic, or the part that
    several personas share (`shared_part`). What was found on an evaluation family may not enter, so
    the result counts the nuisances' prompt families among those it was found on.

    Attributes:
        finder: how to find.
        nuisances: what to take out, each at every site that is searched. Any number; two that are
            nearly parallel count as one.
    """

    name: ClassVar[str] = "orthogonalised"
    finder: Finder
    nuisances: tuple[BySite, ...]

    @property
    def label(self) -> str:
        names = (next(iter(of.values())).persona for of in self.nuisances if of)
        return f"{self.finder.label}{ORTHOGONAL}{', '.join(names)}"

    @property
    def families_used(self) -> frozenset[str]:
        used = (d.families_used for of in self.nuisances for d in of.values())
        return self.finder.families_used.union(*used)

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,
    ) -> Float[Tensor, "draw site d_model"]:
        """As the other finder does.

        Raises:
            RequestError: no design says at which sites x was read.
            SiteMismatchError: a nuisance is of another model or width, or is missing at a site.
            DegenerateClassesError: the classes differ along the nuisances alone.
        """
        if design is None:
            raise RequestError(f"{self.label}: pass a Design, which says where x was read")
        axes = torch.stack([self._axes(site, x.shape[2], design) for site in design.sites])
        x = x.double()
        centred = x - x.mean(dim=1, keepdim=True)
        cleaned = _without(centred, axes)
        contrast = class_contrast(labels, weights)
        before, after = ((contrast @ of).norm(dim=-1) for of in (centred, cleaned))
        if (after <= REMAINS * before).any():
            raise DegenerateClassesError(
                "the classes differ along the nuisances alone, so nothing is left to find for "
                f"{self.label}; leave one out"
            )
        found = self.finder.fit_many(cleaned, labels, weights, design)
        return _without(found.double().transpose(0, 1), axes).transpose(0, 1)

    def _axes(self, site: Site, width: int, design: Design) -> Float[Tensor, "axis d_model"]:
        """Orthonormal axes of the span of the nuisances at a site; the rest are zero."""
        units = torch.zeros(1, width, dtype=torch.float64)
        for of in self.nuisances:
            if site not in of:
                name = next(iter(of.values())).persona if of else "a nuisance"
                raise SiteMismatchError(
                    f"no direction of {name!r} at {site.hook_name} to be orthogonal to"
                )
            direction = of[site]
            theirs, ours = direction.provenance.model_hash, design.model_hash
            if len(direction.unit) != width or (None not in (theirs, ours) and theirs != ours):
                raise SiteMismatchError(
                    f"{direction.name} ({len(direction.unit)} dimensions, model {theirs}) cannot "
                    f"be removed from activations of {width} dimensions and model {ours}"
                )
            units = torch.cat([units, direction.unit.double()[None]])
        _, sizes, axes = torch.linalg.svd(units, full_matrices=False)
        orthonormal: Tensor = axes * (sizes > INDEPENDENT)[:, None]
        return orthonormal


def read_nuisances(told: Sequence[str]) -> tuple[BySite, ...]:
    """Directions to be orthogonal to, as the command line names them.

    Args:
        told: "FOLDER:PERSONA" each, of directions on disk.

    Raises:
        RequestError: one is not of this form, or is not there.
    """
    found = []
    for each in told:
        folder, colon, persona = each.rpartition(":")
        if not (folder and colon and persona):
            raise RequestError(
                f"{each!r} does not name a direction; write FOLDER:PERSONA, as in "
                "artifacts/refusal:refusal"
            )
        directions = load_directions(Path(folder))
        if persona not in directions:
            raise RequestError(
                f"{folder} holds no direction of {persona!r}; there are {', '.join(directions)}"
            )
        found.append(directions[persona])
    return tuple(found)


def _without(
    rows: Float[Tensor, "site row d_model"], axes: Float[Tensor, "site axis d_model"]
) -> Float[Tensor, "site row d_model"]:
    return rows - (rows @ axes.transpose(1, 2)) @ axes
