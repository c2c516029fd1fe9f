"""What an exported file adds to the residual stream: directions times a strength."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.shape import ModelShape
from persona_probe.models.site import Site

Units: TypeAlias = Literal["gap", "norm", "raw"]  # as in `steering.Add`

WORDS: dict[str, Units] = {"gaps": "gap", "norms": "norm", "raw": "raw"}  # on the command line


def units_named(word: str) -> Units:
    """The units that a word of the command line means.

    Raises:
        RequestError: it means none; the message lists the choices.
    """
    if word not in WORDS:
        raise RequestError(f"no unit {word!r}; choose one of {', '.join(WORDS)}")
    return WORDS[word]


@dataclass(frozen=True, eq=False)
class Additions:
    """One persona's directions at one or several sites, and how much of each.

    Attributes:
        directions: site → direction, all of one persona and one width.
        strength: how many units of each direction; negative turns it round.
        units: what a unit is. "gap": the distance of the class means; "norm": the median residual
            norm at the site; "raw": 1.
        shape: the model that the file is for, where the format needs to know it.
    """

    directions: Mapping[Site, Direction]
    strength: float
    units: Units = "gap"
    shape: ModelShape | None = None

    def __post_init__(self) -> None:
        if not self.directions:
            raise RequestError("no direction to export; choose at least one layer")
        if not math.isfinite(self.strength):
            raise RequestError(f"the strength must be finite, got {self.strength}")
        if self.units not in get_args(Units):
            raise RequestError(f"units must be one of {get_args(Units)}, got {self.units!r}")
        for site, direction in self.directions.items():
            self._require_fit(site, direction)

    @property
    def persona(self) -> str:
        return next(iter(self.directions.values())).persona

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where they act, in order of depth."""
        return tuple(sorted(self.directions))

    @property
    def d_model(self) -> int:
        return len(next(iter(self.directions.values())).unit)

    def size(self, site: Site) -> float:
        """One unit at a site, in residual units.

        Raises:
            RequestError: the direction does not know its residual norm.
        """
        direction = self.directions[site]
        size = {"gap": direction.gap, "norm": direction.norm, "raw": 1.0}[self.units]
        if not (math.isfinite(size) and size > 0):
            raise RequestError(
                f"{direction.name} has {self.units} {size}, so a strength in units of it has no "
                "meaning; use --unit gaps or raw"
            )
        return size

    def amount(self, site: Site) -> float:
        """Length of what is added at a site, in residual units; negative when turned round."""
        return self.strength * self.size(site)

    def vectors(self) -> dict[Site, Float[Tensor, " d_model"]]:
        """What is added, by site, in order of depth; bit for bit what `steering.Add` adds.

        Raises:
            RequestError: the strength is 0.
        """
        if self.strength == 0:
            raise RequestError("a strength of 0 adds nothing, so there is nothing to write")
        return {
            site: torch.tensor([self.amount(site)], dtype=torch.float32)
            * self.directions[site].unit.cpu()
            for site in self.sites
        }

    def midpoint(self, site: Site) -> float:
        """Half-way between the class means along the vector as it is written; NaN if unknown."""
        return math.copysign(1.0, self.strength) * self.directions[site].midpoint

    def only_site(self, format_name: str) -> Site:
        """The site, for formats that hold one vector.

        Raises:
            RequestError: there are several.
        """
        if len(self.directions) > 1:
            raise RequestError(
                f"{format_name} holds one vector and {len(self.directions)} layers were asked "
                "for; choose one with --layer, and write one file for each"
            )
        return self.sites[0]

    def rows(self, n_rows: int, first: int) -> Float[Tensor, "row d_model"]:
        """The vectors as a matrix: that of block l in row l + `first`, zeros elsewhere."""
        matrix = torch.zeros(n_rows, self.d_model)
        for site, vector in self.vectors().items():
            matrix[site.layer + first] = vector
        return matrix

    def depth(self, format_name: str) -> int:
        """Number of blocks, for formats that have a row for each.

        Raises:
            RequestError: the model was not named.
        """
        if self.shape is None:
            raise RequestError(
                f"{format_name} has a row for every block, so the number of blocks must be known; "
                "name the model with --model"
            )
        return self.shape.n_layers

    def sentence(self) -> str:
        """What the file is, for formats with room for a line of prose."""
        first = self.directions[self.sites[0]]
        layers = ", ".join(str(site.layer) for site in self.sites)
        unit = {"gap": "class gaps", "norm": "median residual norms", "raw": "residual units"}
        where = first.provenance.model or "a model that is not recorded"
        return (
            f"{first.persona} at layer {layers}, {self.strength:g} {unit[self.units]}, found by "
            f"{first.finder} ({first.family}, {first.position}) in {where} "
            f"(weights {first.provenance.model_hash or 'not recorded'})"
        )

    def _require_fit(self, site: Site, direction: Direction) -> None:
        if direction.persona != self.persona:
            raise RequestError(
                f"one file is for one persona, got {self.persona!r} and {direction.persona!r}"
            )
        if direction.site != site:
            raise RequestError(f"{direction.name} is listed at {site}, where it was not read")
        width, depth = self.d_model, None
        if self.shape is not None:
            width, depth = self.shape.d_model, self.shape.n_layers
        if len(direction.unit) != width:
            raise RequestError(
                f"{direction.name} has {len(direction.unit)} dimensions, "
                f"{self.shape.label if self.shape else 'another of them'} has {width}"
            )
        if depth is not None and self.shape is not None and site.layer >= depth:
            raise RequestError(
                f"{direction.name} does not fit {self.shape.label}, which has layers 0 to "
                f"{depth - 1}"
            )
