"""Directions compared at an equal cost: each with the strength that has it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.sweep import Cell, Manner, chosen_directions, measure_cells
from persona_probe.evaluation.widest import largest_in_guard
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.steering.calibration import Measure, calibrate

KL_GOALS: dict[str, Measure] = {"kl": "per_token", "first_token_kl": "first_token"}


@dataclass(frozen=True)
class Goal:
    """What a strength is looked for.

    Attributes:
        kind: "kl": the smallest strength with this KL to the unsteered model on neutral text.
            "guards": the largest strength that passes every guard.
        measure: KL per token, or at the first token.
        nats: the KL.
    """

    kind: Literal["kl", "guards"]
    measure: Measure = "per_token"
    nats: float = math.nan

    @classmethod
    def parse(cls, text: str) -> "Goal":
        """Read "kl=0.1", "first_token_kl=0.1" or "guards".

        Raises:
            RequestError: it has another form.
        """
        if text == "guards":
            return cls("guards")
        name, _, amount = text.partition("=")
        try:
            nats = float(amount)
        except ValueError:
            nats = math.nan
        if name not in KL_GOALS or not 0 < nats < math.inf:
            raise RequestError(
                f"cannot calibrate to {text!r}; write kl=0.1, first_token_kl=0.1 or guards"
            )
        return cls("kl", KL_GOALS[name], nats)


def sweep_calibrated(
    model: ResidualModel,
    pack: Pack,
    directions: DirectionSet,
    sites: Sequence[Site],
    goal: Goal,
    personas: Sequence[str] | None = None,
    manner: Manner | None = None,
    dose: bool = False,
) -> list[dict[str, Any]]:
    """`sweep_directions` with one strength per direction: the one that meets the goal.

    Returns:
        One row per persona and layer, as `sweep_directions` has them, with "calibration" added.
        Where the goal cannot be met, the row has no strength and a "reason".

    Raises:
        RequestError: also where the operation has no strength, or does not act alone, so that
            strength 0 is not the unsteered model.
    """
    manner = manner or Manner()
    if manner.then or not manner.treatment.has_strength:
        what = "interventions that follow" if manner.then else manner.treatment.operation
        raise RequestError(f"no strength can be calibrated with {what}; sweep over strengths")
    text = benign_replies(model, pack, manner.adapter, manner.n, manner.seed)
    cells: list[Cell | None] = []
    rows: list[dict[str, Any]] = []
    for persona, direction in chosen_directions(directions, sites, personas):
        row = Cell(persona, (direction,), None).to_json()
        try:
            row |= _met(model, pack, direction, goal, text, manner)
        except RequestError:
            raise
        except PersonaProbeError as error:
            row["reason"] = str(error)
        rows.append(row)
        strength = row["strength"]
        cells.append(None if strength is None else Cell(persona, (direction,), strength))
    measured = iter(
        measure_cells(model, pack, [cell for cell in cells if cell], text if dose else [], manner)
    )
    return [
        row if cell is None else row | next(measured) for row, cell in zip(rows, cells, strict=True)
    ]


def _met(
    model: ResidualModel,
    pack: Pack,
    direction: Direction,
    goal: Goal,
    text: Sequence[Conversation],
    manner: Manner,
) -> dict[str, Any]:
    treatment, highest = manner.treatment, manner.treatment.highest(direction)
    if goal.kind == "kl":
        found = calibrate(
            model,
            direction,
            text,
            goal.nats,
            operation=treatment.operation_at,
            schedule=treatment.schedule,
            sites=treatment.sites,
            condition=treatment.condition,
            adapter=manner.adapter,
            measure=goal.measure,
            highest=highest,
        )
        return {"strength": found.strength, "calibration": found.to_json()}
    widest = largest_in_guard(
        model,
        pack,
        direction,
        manner.adapter,
        treatment.schedule,
        operation=treatment.operation_at,
        sites=treatment.sites,
        condition=treatment.condition,
        highest=highest / 2,
        n=manner.n,
        seed=manner.seed,
    )
    said: dict[str, Any] = {"strength": widest.strength or None, "calibration": widest.to_json()}
    if not widest.strength:
        reasons = "; ".join(widest.reasons)
        said["reason"] = f"not even strength {widest.fails_at:.3g} passes the guards: {reasons}"
    return said
