"""What an operation on the residual stream is."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.models.site import Site


@runtime_checkable
class Operation(Protocol):
    """A change of the residual along one direction: a frozen dataclass that holds its settings.

    The work is cut in two, so that every row of a batch can carry its own direction and settings:
    `parameters` turns settings and direction into a few plain numbers, and `edit` is a pure
    function of tensors that broadcasts over them. A setting of "nothing" (strength 0) takes the
    same path as any other and must return its input bit for bit.

    A complete operation, which mirrors the residual in the plane through the origin:

        @dataclass(frozen=True)
        class Reflect:
            def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
                return ()

            @staticmethod
            def edit(resid, unit, parameters):
                projection = (resid.float() * unit).sum(dim=-1, keepdim=True)
                return resid - (2 * projection * unit).to(resid.dtype)
    """

    def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
        """The numbers `edit` needs at `site`, in raw residual units; as many for every direction.

        Raises:
            RequestError: the settings ask for something that the direction does not know.
        """
        ...

    @staticmethod
    def edit(
        resid: Float[Tensor, "*batch d_model"],
        unit: Float[Tensor, "*#batch d_model"],
        parameters: Float[Tensor, "*#batch parameter"],
    ) -> Float[Tensor, "*batch d_model"]:
        """The changed residual, a new tensor of the same type.

        Args:
            resid: residual stream after a block, in the model's own precision.
            unit: directions of length one, float32.
            parameters: what `parameters` returned, float32, along the last axis.
        """
        ...
