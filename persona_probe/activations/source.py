"""Where the values of an extraction come from: the model in this process, or one elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.budget import Budget
from persona_probe.activations.forward import values_of
from persona_probe.activations.reading import Reading
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance

Values = dict[str, Float[Tensor, "row site d_model"]]


@runtime_checkable
class Source(Protocol):
    """Gives the values of shards, one after the other."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def dtype(self) -> str:
        """What the model computes in, for instance "bfloat16"."""
        ...

    def describe(self, adapter: str | None, **fields: Any) -> Provenance:
        """Provenance of what is read with an adapter."""
        ...

    def values(
        self,
        adapter: str | None,
        reading: Reading,
        shards: Sequence[range],
        sites: Sequence[Site],
        advance: Callable[[int], None],
    ) -> Iterator[Values]:
        """Position → rows of each shard (a range of sequences), in the order of the shards."""
        ...


class Here:
    """The model in this process.

    Args:
        model: read shard by shard, left as it was.
        budget: tokens per batch; by the device if not given.
    """

    def __init__(self, model: ResidualModel, budget: Budget | None = None) -> None:
        self._model = model
        self._budget = budget

    @property
    def d_model(self) -> int:
        return self._model.d_model

    @property
    def dtype(self) -> str:
        return str(self._model.dtype).removeprefix("torch.")

    def describe(self, adapter: str | None, **fields: Any) -> Provenance:
        with self._model.adapter(adapter):
            return self._model.describe(**fields)

    def values(
        self,
        adapter: str | None,
        reading: Reading,
        shards: Sequence[range],
        sites: Sequence[Site],
        advance: Callable[[int], None],
    ) -> Iterator[Values]:
        with self._model.adapter(adapter):
            self._budget = self._budget or Budget.of(self._model)
            for shard in shards:
                yield values_of(self._model, reading, shard, sites, self._budget, advance)
