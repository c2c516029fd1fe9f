"""Turn the residual stream towards a direction and keep its length."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.operation import projection

AngleUnits = Literal["degrees", "share"]
MOST: dict[str, float] = {"degrees": 180.0, "share": 1.0}


@dataclass(frozen=True)
class Rotate:
    """Rotate h in the plane of h and v, towards v, by an angle; ||h|| stays what it was.

    A turn ends at v (or at -v, for a negative one) and never goes past it. Norms carry their own
    information and later norms divide by them, so this moves the angle alone: Vu & Nguyen 2025,
    arXiv:2510.26243, who turn in a fixed plane; here it is each token's own, which is the
    shortest way. A residual that is parallel to v has no such plane and is left as it is.

    Attributes:
        strength: how far; positive towards v, negative towards -v, 0 changes no bit.
        units: "degrees", or "share": the share of the angle that lies between h and v, so that 1
            arrives at v whatever the token.
    """

    strength: float
    units: AngleUnits = "degrees"

    def __post_init__(self) -> None:
        if self.units not in get_args(AngleUnits):
            raise RequestError(f"units must be one of {get_args(AngleUnits)}, got {self.units!r}")
        if not abs(self.strength) <= MOST[self.units]:
            raise RequestError(
                f"a rotation in units of {self.units} must be between -{MOST[self.units]:g} and "
                f"{MOST[self.units]:g}, got {self.strength}"
            )

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:  # noqa: ARG002
        if self.units == "degrees":
            return (math.radians(self.strength), 0.0)
        return (0.0, self.strength)

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch 2"],
    ) -> Float[Tensor, "*batch d_model"]:
        radians, share = parameters[..., :1], parameters[..., 1:]
        along = projection(resid, unit)
        rest = resid.float() - along * unit
        across = rest.square().sum(dim=-1, keepdim=True).sqrt()
        angle = torch.atan2(across, along)  # 0 at v, pi at -v
        turn = radians + share * torch.where(share > 0, angle, math.pi - angle)
        turn = turn.clamp(min=angle - math.pi, max=angle)
        sine, cosine = turn.sin(), turn.cos()
        # Written as a change, so that a turn by nothing adds nothing.
        change = (along * cosine + across * sine - along) * unit
        change = change + ((across * cosine - along * sine) / across - 1) * rest
        return (resid.float() + torch.where(across > 0, change, 0.0)).to(resid.dtype)
