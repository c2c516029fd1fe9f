"""Ablate, scale or shift the component of the residual stream in the span of directions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.operation import projection

RELATIVE_RANK = 1e-6
"""Shorter axes, relative to the longest, are rounding: the directions depend on each other."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """h - P h + scale P h + P x, where P projects onto the span of the directions.

    Scale 0 ablates the span, scale 1 adds x within it, what is orthogonal to it never moves.
    Several independent directions may carry one behaviour (Wollschläger et al. 2025,
    arXiv:2502.17420). Ablating one after the other is right only where they are orthogonal; here
    they need not be. Directions that depend on each other span fewer dimensions.

    Attributes:
        others: the directions that span it together with the intervention's own, read at the same
            site of the same model.
        scale: what the component is multiplied by; 1 with no offset changes no bit.
        offset: x, in residual units: one vector or one per site; only its component in the span
            counts. With scale 0 and another model's mean activation the component is set to that
            model's level.
    """

    others: tuple[Direction, ...] = ()
    scale: float = 0.0
    offset: Float[Tensor, " d_model"] | Mapping[Site, Float[Tensor, " d_model"]] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise RequestError(f"the scale of a subspace must be finite, got {self.scale}")
        offsets = self.offset.values() if isinstance(self.offset, Mapping) else [self.offset]
        if not all(x is None or bool(x.isfinite().all()) for x in offsets):
            raise RequestError("the offset in a subspace must be finite, it holds NaN or inf")

    def axes(self, direction: Direction) -> Float[Tensor, "axis d_model"]:
        for other in self.others:
            direction.require_same_space(other)
        vectors = torch.stack([d.unit.double() for d in (direction, *self.others)])
        _, sizes, axes = torch.linalg.svd(vectors, full_matrices=False)
        independent: Tensor = axes[sizes > RELATIVE_RANK * sizes[0]].float()
        return independent

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
        axes = self.axes(direction)
        offset = self.offset
        if isinstance(offset, Mapping):
            if site not in offset:
                known = ", ".join(str(s.layer) for s in offset)
                raise RequestError(
                    f"no offset in the subspace of {direction.persona!r} at layer {site.layer}; "
                    f"offsets are known at layers {known}"
                )
            offset = offset[site]
        if offset is None:
            return (self.scale - 1, *(0.0 for _ in axes))
        if offset.shape != direction.unit.shape:
            raise RequestError(
                f"the offset has shape {list(offset.shape)}, the {direction.name} has "
                f"{len(direction.unit)} dimensions"
            )
        return (self.scale - 1, *(axes.double() @ offset.cpu().double()).tolist())

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch axis d_model"],
        parameters: Float[Tensor, "*#batch parameter"],
    ) -> Float[Tensor, "*batch d_model"]:
        factor, shifts = parameters[..., :1], parameters[..., 1:]
        changed = resid.float()
        # Axis by axis: [batch axis d_model] would be many times the size of the residual.
        for index, axis in enumerate(unit.unbind(dim=-2)):
            shift = shifts[..., index : index + 1]
            changed = changed + (factor * projection(resid, axis) + shift) * axis
        return changed.to(resid.dtype)
