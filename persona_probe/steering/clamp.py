"""Keep the component of the residual stream along a direction within bounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.operation import projection

BoundUnits = Literal["raw", "gap"]
Bound = float | Mapping[Site, float]


@dataclass(frozen=True)
class Clamp:
    """h + (min(max(h·v, low), high) - h·v) v: tokens within the bounds keep every bit.

    Activation capping, of the Assistant Axis from below: Lu et al. 2026, arXiv:2601.10387.

    Attributes:
        low: least projection h·v afterwards: one number, or one per site; -inf leaves it open.
        high: greatest projection afterwards; inf leaves it open.
        units: "raw": residual units. "gap": class gaps, so that -0.5 and 0.5 are the means of
            the classes that the direction was found on.
    """

    low: Bound = -math.inf
    high: Bound = math.inf
    units: BoundUnits = "raw"

    def __post_init__(self) -> None:
        if self.units not in get_args(BoundUnits):
            raise RequestError(f"units must be one of {get_args(BoundUnits)}, got {self.units!r}")
        for site in {**_sites(self.low), **_sites(self.high)} or {None: None}:
            low, high = _at(self.low, site, -math.inf), _at(self.high, site, math.inf)
            # Written so that NaN is refused, too.
            if not (low <= high and low < math.inf and high > -math.inf):
                where = "" if site is None else f" at {site}"
                raise RequestError(
                    f"a clamp needs low <= high, -inf or inf where a side is open, got low {low} "
                    f"and high {high}{where}"
                )

    @classmethod
    def at_quantiles(
        cls,
        projections: Mapping[Site, Float[Tensor, " example"]],
        low: float | None = None,
        high: float | None = None,
    ) -> "Clamp":
        """Bounds at quantiles of projections h·v that were seen, site by site.

        Args:
            projections: in residual units, at every site that is to be clamped.
            low: quantile of the lower bound, 0.25 for a quarter; `None` leaves the side open.
            high: quantile of the upper bound.

        Raises:
            RequestError: a quantile is not a share, or a site has no finite projections.
        """
        for share in (low, high):
            if share is not None and not 0 <= share <= 1:
                raise RequestError(f"a quantile is a share between 0 and 1, got {share}")
        for site, values in projections.items():
            if len(values) == 0 or not bool(values.isfinite().all()):
                raise RequestError(f"no finite projections at {site} to take a quantile of")

        def bounds(share: float | None, if_open: float) -> Bound:
            if share is None:
                return if_open
            return {s: float(torch.quantile(v.double(), share)) for s, v in projections.items()}

        return cls(bounds(low, -math.inf), bounds(high, math.inf))

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
        bounds = []
        for bound in (self.low, self.high):
            if isinstance(bound, Mapping) and site not in bound:
                known = ", ".join(str(s.layer) for s in bound)
                raise RequestError(
                    f"no bound of the clamp on {direction.persona!r} at layer {site.layer}; "
                    f"bounds are known at layers {known}"
                )
            bounds.append(_at(bound, site, math.nan))
        if self.units == "raw":
            return tuple(bounds)
        if math.isnan(direction.midpoint):
            raise RequestError(
                f"the {direction.name} has no midpoint, so bounds in class gaps have no meaning; "
                "give the bounds in raw units"
            )
        return tuple(direction.midpoint + bound * direction.gap for bound in bounds)

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch 2"],
    ) -> Float[Tensor, "*batch d_model"]:
        before = projection(resid, unit)
        after = before.clamp(min=parameters[..., :1], max=parameters[..., 1:])
        return resid + ((after - before) * unit).to(resid.dtype)


def _sites(bound: Bound) -> dict[Site | None, None]:
    return dict.fromkeys(bound) if isinstance(bound, Mapping) else {}


def _at(bound: Bound, site: Site | None, unknown: float) -> float:
    if not isinstance(bound, Mapping):
        return bound
    return unknown if site is None else bound.get(site, unknown)
