"""Set the component of the residual stream along a direction to a fixed level."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.operation import projection


@dataclass(frozen=True)
class Ablate:
    """h - (h·v - level) v: afterwards h·v is `level`, and nothing orthogonal to v has moved.

    Level 0 removes the direction (Arditi et al. 2024, arXiv:2406.11717). A level that another
    model has on the same kind of text asks what is lost when only this component is turned back:
    only the component is replaced, never the whole mean. A component removed at one site can be
    rebuilt by later blocks, so necessity is tested with the direction ablated at every site.

    Attributes:
        level: the projection h·v afterwards, in residual units: one number, or one per site;
            `None` is 0.
    """

    level: float | Mapping[Site, float] | None = None

    def __post_init__(self) -> None:
        levels = self.level.values() if isinstance(self.level, Mapping) else (self.level or 0.0,)
        if not all(math.isfinite(level) for level in levels):
            raise RequestError(f"the level of an ablation must be finite, got {self.level}")

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
        if not isinstance(self.level, Mapping):
            return (self.level or 0.0,)
        if site not in self.level:
            known = ", ".join(str(s.layer) for s in self.level)
            raise RequestError(
                f"no ablation level for {direction.persona!r} at layer {site.layer}; "
                f"levels are known at layers {known}"
            )
        return (self.level[site],)

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch 1"],
    ) -> Float[Tensor, "*batch d_model"]:
        return resid + ((parameters - projection(resid, unit)) * unit).to(resid.dtype)
