"""Add a multiple of a direction to the residual stream."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site

Units = Literal["norm", "gap", "raw"]


@dataclass(frozen=True)
class Add:
    """h + a·s·v, where v is the unit vector, a the strength and s the size of one unit of it.

    Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2023, arXiv:2312.06681.

    Attributes:
        strength: a; positive moves towards the direction's positive class, 0 changes no bit.
        units: what s is. "norm": the median residual norm at the direction's site on neutral text,
            comparable between directions, sites and models. "gap": the distance between the class
            means that the direction was found on. "raw": 1, in units of the residual itself.
    """

    strength: float
    units: Units = "norm"

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise RequestError(f"the strength of an addition must be finite, got {self.strength}")
        if self.units not in get_args(Units):
            raise RequestError(f"units must be one of {get_args(Units)}, got {self.units!r}")

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:  # noqa: ARG002
        size = {"norm": direction.norm, "gap": direction.gap, "raw": 1.0}[self.units]
        if not (math.isfinite(size) and size > 0):
            raise RequestError(
                f"the direction {direction.persona!r} at {direction.site.hook_name} has "
                f"{self.units} {size}, so a strength in units of it has no meaning; "
                "give the strength in raw units: add:raw"
            )
        return (self.strength * size,)

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch 1"],
    ) -> Float[Tensor, "*batch d_model"]:
        return resid + (parameters * unit).to(resid.dtype)
