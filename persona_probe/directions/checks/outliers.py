"""Does one loud coordinate own the direction?

In some models a few coordinates of the residual stream vary many times more than the others, and a
difference of means is then mostly theirs. The ratio of the largest to the median standard deviation
of a coordinate, over sqrt(d_model), was 0.46-1.73 where directions failed and 0.11-0.17 where they
worked. Beside the flag stands what the same finder gives without the loud coordinates, and on
coordinates of equal spread: a direction that does not need them survives both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.statistics import Estimate

LIMIT = 0.3  # between the ranges reported for models where directions fail and work


@dataclass(frozen=True)
class WithoutOutliers:
    """The direction found without loud coordinates, and with all of them made equally loud.

    Attributes:
        coordinates: those left out: all beyond the limit, and the loudest one in any case.
        masked_cosine: to the plain direction.
        masked: held-out AUROC without these coordinates.
        standardised_cosine: of the readout vector, in residual units, to the plain direction.
        standardised: held-out AUROC of what is found on coordinates divided by their deviation.
    """

    coordinates: tuple[int, ...]
    masked_cosine: float
    masked: Estimate
    standardised_cosine: float
    standardised: Estimate

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "coordinates": list(self.coordinates),
            "masked_cosine": self.masked_cosine,
            "masked": self.masked.to_json(),
            "standardised_cosine": self.standardised_cosine,
            "standardised": self.standardised.to_json(),
        }


@dataclass(frozen=True, eq=False)
class Quietened:
    """Unit vectors of the two variants at every site."""

    coordinates: list[tuple[int, ...]]
    masked: Float[Tensor, "site d_model"]
    standardised: Float[Tensor, "site d_model"]

    def rows(
        self,
        plain: Float[Tensor, "site d_model"],
        masked: Sequence[Estimate],
        standardised: Sequence[Estimate],
    ) -> list[WithoutOutliers]:
        """One per site, given the plain directions and both variants' held-out AUROC."""
        cosines = [
            cosine_similarity(vectors, plain, dim=-1).tolist()
            for vectors in (self.masked, self.standardised)
        ]
        columns = (self.coordinates, cosines[0], masked, cosines[1], standardised)
        return [WithoutOutliers(*row) for row in zip(*columns, strict=True)]


def loudness(x: Float[Tensor, "site example d_model"]) -> Float[Tensor, "site d_model"]:
    """Standard deviation of each coordinate over the median one, over sqrt(d_model)."""
    spread = x.std(dim=1)
    return spread / spread.median(dim=-1, keepdim=True).values / math.sqrt(x.shape[-1])


def quietened(data: Labelled, finder: Finder) -> Quietened:
    """What `finder` finds without the loud coordinates, and on standardised ones."""
    loud = loudness(data.x)
    out = (loud > LIMIT) | (loud == loud.amax(dim=-1, keepdim=True))
    scale = data.x.std(dim=1)
    scale = torch.where(scale > 0, scale, 1.0)
    masked = _found(data, finder, data.x * ~out[:, None])
    # Found on x / scale, w reads x / scale, so that in residual units it is w / scale.
    standardised = _found(data, finder, data.x / scale[:, None]) / scale
    return Quietened(
        coordinates=[tuple(row.nonzero()[:, 0].tolist()) for row in out],
        masked=normalize(masked * ~out, dim=-1),
        standardised=normalize(standardised, dim=-1),
    )


def _found(
    data: Labelled, finder: Finder, x: Float[Tensor, "site example d_model"]
) -> Float[Tensor, "site d_model"]:
    return fit_oriented(finder, x, data.y[None], data.ones, data.design)[0]
