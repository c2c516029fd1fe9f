"""What an operation on the residual stream is."""

from collections.abc import Sequence
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

    That is all most operations need. What goes beyond it is declared by having one member more:
    `HasStrength` can fade from token to token, `PerToken` knows a number for every token of a
    text, `Spanning` acts along several axes.

    A complete operation, which mirrors the residual in the plane through the origin:

        @dataclass(frozen=True)
        class Reflect:
            def parameters(self, direction: Direction, site: Site) -> tuple[float, ...]:
                return ()

            @staticmethod
            def edit(resid, unit, parameters):
                return resid - (2 * projection(resid, unit) * unit).to(resid.dtype)
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
            unit: directions of length one, float32; `Spanning.axes` where an operation has them.
            parameters: what `parameters` returned, float32, along the last axis.
        """
        ...


@runtime_checkable
class HasStrength(Protocol):
    """An operation whose parameters are proportional to a strength, 0 meaning nothing.

    A schedule that fades multiplies its parameters by the weight of each token.
    """

    @property
    def strength(self) -> float: ...


@runtime_checkable
class PerToken(Protocol):
    """An operation whose parameters differ from token to token of a text that it knows."""

    def token_parameters(
        self, direction: Direction, site: Site, ids: Sequence[int]
    ) -> Float[Tensor, "token parameter"]:
        """`parameters` for each of the first tokens of a text; takes their place.

        Raises:
            RequestError: the text, or the site, is not known.
        """
        ...


@runtime_checkable
class Spanning(Protocol):
    """An operation that acts along several axes at once."""

    def axes(self, direction: Direction) -> Float[Tensor, "axis d_model"]:
        """Orthonormal axes; what `edit` gets in place of the one unit vector."""
        ...


def projection(
    resid: Float[Tensor, "*batch d_model"], unit: Float[Tensor, "*#batch d_model"]
) -> Float[Tensor, "*batch 1"]:
    """h·v in float32. A sum, not a matrix product: its rounding is the same in any batch."""
    return (resid.float() * unit).sum(dim=-1, keepdim=True)
