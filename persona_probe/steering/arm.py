"""What is done to a model in one condition of an experiment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.condition import Condition
from persona_probe.steering.operation import HasStrength, Operation, Spanning
from persona_probe.steering.schedule import matching_schedule, schedule_named


@dataclass(frozen=True)
class Intervention:
    """One direction, what is done with it, where and when.

    Attributes:
        direction: the direction acted along.
        operation: what is done along it.
        schedule: a name that `schedule_named` reads; `None` acts where the direction was read.
        sites: the sites acted at; `None` is the direction's own.
        condition: switches it on for a row, or leaves the row alone; `None` is always on.
    """

    direction: Direction
    operation: Operation
    schedule: str | None = None
    sites: tuple[Site, ...] | None = None
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if schedule_named(self.when).fades and not isinstance(self.operation, HasStrength):
            raise RequestError(
                f"the schedule {self.when!r} weakens an operation from token to token, and "
                f"{type(self.operation).__name__} has no strength to weaken; choose first:K, or "
                "an operation with a strength"
            )
        if self.condition is not None and min(self.where, default=self.condition.site) < (
            self.condition.site
        ):
            raise RequestError(
                f"an intervention at {min(self.where)} cannot wait for a condition that is read "
                f"later, at {self.condition.site}; read it there or before"
            )

    @property
    def when(self) -> str:
        """The name of the schedule in force."""
        return self.schedule or matching_schedule(self.direction.position)

    @property
    def where(self) -> tuple[Site, ...]:
        """The sites in force."""
        return (self.direction.site,) if self.sites is None else self.sites

    @property
    def touched(self) -> tuple[Site, ...]:
        """The sites that it acts at or reads, in order of depth."""
        read = () if self.condition is None else (self.condition.site,)
        return tuple(sorted({*self.where, *read}))

    @property
    def vectors(self) -> Float[Tensor, "*axes d_model"]:
        """What the operation acts along: the direction's unit vector, or axes of its own."""
        if isinstance(self.operation, Spanning):
            return self.operation.axes(self.direction)
        return self.direction.unit.float()

    @property
    def reaches_the_prompt(self) -> bool:
        """Whether it changes or reads any token of the prompt."""
        return self.condition is not None or schedule_named(self.when).span != "response"

    @property
    def spares_the_prompt(self) -> bool:
        """Whether it neither changes nor reads anything before the last prompt token."""
        reads_it = self.condition is not None and self.condition.at == "prompt_mean"
        return schedule_named(self.when).spares_the_prompt and not reads_it


@dataclass(frozen=True)
class Arm:
    """One condition: weights, and interventions on them in the order in which they apply.

    Attributes:
        name: unique within a run; results carry it.
        interventions: none for the model as it is.
        adapter: LoRA adapter that is on; `None` for the bare weights.
    """

    name: str
    interventions: tuple[Intervention, ...] = ()
    adapter: str | None = None

    @property
    def spares_the_prompt(self) -> bool:
        """Whether nothing before the last prompt token matters, so that arms can share all that."""
        return all(i.spares_the_prompt for i in self.interventions)


def require_fit(model: ResidualModel, interventions: Iterable[Intervention]) -> None:
    """Raise `SiteMismatchError` unless every intervention fits the model."""
    for intervention in interventions:
        intervention.direction.check_fits(model)
        if intervention.condition is not None:
            intervention.condition.direction.check_fits(model)
        for site in intervention.where:
            if not 0 <= site.layer < model.n_layers:
                raise SiteMismatchError(
                    f"{model.ref.label} has layers 0 to {model.n_layers - 1}, "
                    f"so it cannot be steered at {site}"
                )


def require_distinct(arms: Sequence[Arm]) -> None:
    """Raise `RequestError` when two arms share a name, or there is none."""
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not arms:
        raise RequestError(
            f"two arms are called {twice[0]!r}; names must differ" if twice else "no arms given"
        )


def alike(arms: Sequence[Arm]) -> dict[tuple[str | None, bool], list[int]]:
    """Indices of arms that can share batches: (adapter, whether they spare the prompt) → arms."""
    groups: dict[tuple[str | None, bool], list[int]] = {}
    for index, arm in enumerate(arms):
        groups.setdefault((arm.adapter, arm.spares_the_prompt), []).append(index)
    return groups
