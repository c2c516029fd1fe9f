"""What is done to a model in one condition of an experiment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.operation import Operation
from persona_probe.steering.schedule import SPARE_THE_PROMPT, matching_schedule, schedule_named


@dataclass(frozen=True)
class Intervention:
    """One direction, what is done with it, where and when.

    Attributes:
        direction: the direction acted along.
        operation: what is done along it.
        schedule: a name in `SCHEDULES`; `None` acts where the direction was read.
        sites: the sites acted at; `None` is the direction's own.
    """

    direction: Direction
    operation: Operation
    schedule: str | None = None
    sites: tuple[Site, ...] | None = None

    def __post_init__(self) -> None:
        schedule_named(self.when)

    @property
    def when(self) -> str:
        """The name of the schedule in force."""
        return self.schedule or matching_schedule(self.direction.position)

    @property
    def where(self) -> tuple[Site, ...]:
        """The sites in force."""
        return (self.direction.site,) if self.sites is None else self.sites


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
        """Whether nothing changes before the last prompt token, so that arms can share all that."""
        return all(i.when in SPARE_THE_PROMPT for i in self.interventions)


def require_fit(model: ResidualModel, interventions: Iterable[Intervention]) -> None:
    """Raise `SiteMismatchError` unless every intervention fits the model."""
    for intervention in interventions:
        intervention.direction.check_fits(model)
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
