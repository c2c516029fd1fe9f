"""Interventions as a command line has them: what is done, along which directions, where, when."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, direction_at
from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ADAPTER_CONFIG
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site, parse_sites
from persona_probe.steering import interventions_along, operation_named
from persona_probe.steering.arm import Intervention
from persona_probe.steering.condition import Condition, condition_named
from persona_probe.steering.operation import HasStrength, Operation
from persona_probe.steering.patch import Patch

PATCH, BARE = "patch", "bare"
HIGHEST = 4.0  # median residual norms
FORM = "OPERATION PERSONA:LAYER [strength=X] [schedule=S] [sites=S] [if=PERSONA:LAYER:THRESHOLD]"
KEYS = ("strength", "schedule", "sites", "if")


@dataclass(frozen=True)
class Treatment:
    """What is done along a direction, whichever it is.

    Attributes:
        operation: as `operation_named` reads it, or "patch:SOURCE": the projections of another
            run on the same tokens, SOURCE being "bare" for the weights without an adapter, the name
            of an adapter, or another model.
        schedule, sites, condition: as in `Intervention`.
    """

    operation: str = "add"
    schedule: str | None = None
    sites: tuple[Site, ...] | None = None
    condition: Condition | None = None

    def __post_init__(self) -> None:
        name, _, source = self.operation.partition(":")
        if name != PATCH:
            operation_named(self.operation, 0.0)
        elif not source:
            raise RequestError(
                "a patch needs another run to take its values from; write patch:bare, "
                "patch:ADAPTER or patch:MODEL"
            )

    @property
    def has_strength(self) -> bool:
        """Whether it can be done by degrees."""
        return self._name != PATCH and isinstance(self.operation_at(0.0), HasStrength)

    @property
    def spans(self) -> bool:
        """Whether it acts on several directions at once."""
        return self._name == "subspace"

    def require_sense(self, directions: Sequence[Direction], strength: float) -> None:
        """Raise `RequestError` where the settings do not go together, before a model is loaded."""
        if self._name != PATCH:
            interventions_along(
                directions, self.operation_at(strength), self.schedule, None, self.condition
            )

    def operation_at(self, strength: float) -> Operation:
        """The operation with a strength, for those that need to know nothing else."""
        return operation_named(self.operation, strength)

    def along(
        self,
        directions: Sequence[Direction],
        strength: float,
        model: ResidualModel,
        texts: Sequence[Tokens],
    ) -> tuple[Intervention, ...]:
        """Interventions along directions, one after the other, or in their span at once.

        Args:
            directions: in the order in which they apply.
            strength: for operations that have one.
            model: that is steered.
            texts: what it will be run on; a patch reads the other run's values on them.
        """
        if self._name != PATCH:
            return interventions_along(
                directions, self.operation_at(strength), self.schedule, self.sites, self.condition
            )
        other, adapter = _source(model, self.operation.partition(":")[2])
        return tuple(
            Intervention(
                direction,
                Patch.read(other, texts, direction, self.sites, adapter),
                self.schedule,
                self.sites,
                self.condition,
            )
            for direction in directions
        )

    def highest(self, direction: Direction) -> float:
        """The largest strength that is worth trying: four residual norms, or all of a turn."""
        if not self.has_strength:
            raise RequestError(f"{self.operation} has no strength to look for")
        units: str = getattr(self.operation_at(0.0), "units", "norm")
        sizes = {"gap": direction.gap, "raw": 1.0, "norm": direction.norm}
        if units in sizes:
            return HIGHEST * direction.norm / sizes[units]
        return {"degrees": 180.0, "share": 1.0}[units]

    @property
    def _name(self) -> str:
        return self.operation.partition(":")[0]


@dataclass(frozen=True)
class Written:
    """A treatment, the directions that it is along, and its strength."""

    treatment: Treatment
    directions: tuple[Direction, ...]
    strength: float

    @classmethod
    def parse(cls, text: str, directions: DirectionSet, n_layers: int) -> "Written":
        """Read "ablate virtue:2 sites=all schedule=both" or "add:gap service:4 strength=0.5".

        Raises:
            RequestError: it has another form, or there is no such direction or operation.
        """
        operation, _, rest = text.strip().partition(" ")
        whose, *options = rest.split() or [""]
        persona, _, layer = whose.rpartition(":")
        pairs = [option.partition("=") for option in options]
        given = {key: value for key, _, value in pairs}
        if not persona or not layer.isdecimal() or not set(given) <= set(KEYS):
            raise RequestError(f"cannot read the intervention {text!r}; write {FORM}")
        try:
            strength = float(given.get("strength", "1"))
        except ValueError:
            strength = math.nan
        if not math.isfinite(strength):
            raise RequestError(f"intervention {text!r}: strength must be a finite number")
        treatment = Treatment(
            operation,
            given.get("schedule"),
            parse_sites(given["sites"], n_layers) if "sites" in given else None,
            condition_named(given["if"], directions) if "if" in given else None,
        )
        return cls(treatment, (direction_at(directions, persona, int(layer)),), strength)

    def interventions(
        self, model: ResidualModel, texts: Sequence[Tokens]
    ) -> tuple[Intervention, ...]:
        """Arguments as for `Treatment.along`."""
        return self.treatment.along(self.directions, self.strength, model, texts)


def _source(model: ResidualModel, name: str) -> tuple[ResidualModel, str | None]:
    """The other run of a patch: a model and the adapter that is on.

    Raises:
        RequestError: there is none of this name, or it reads other tokens.
    """
    if name == BARE:
        return model, None
    if name in model.ref.adapters() or (Path(name).expanduser() / ADAPTER_CONFIG).is_file():
        return model, name
    try:
        other = load_model(name, str(model.device), model.dtype)
    except RequestError as error:
        known = ", ".join((BARE, *model.ref.adapters()))
        raise RequestError(
            f"no run {name!r} to take a patch from; choose one of {known}, or name a model "
            f"({error})"
        ) from error
    if other.tokenizer_hash != model.tokenizer_hash:
        raise RequestError(
            f"{name} reads other tokens than {model.label}, so its values fit none of them; patch "
            "from a model with the same tokenizer"
        )
    return other, None
