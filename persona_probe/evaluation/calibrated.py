"""Directions compared at an equal cost: each with the strength that has it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.sweep import Cell, chosen_directions, measure_cells
from persona_probe.evaluation.widest import largest_in_guard
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.steering.calibration import Measure, calibrate

HIGHEST = 4.0  # median residual norms
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
    adapter: str | None = None,
    n: int = 60,
    seed: int = 0,
    schedule: str | None = None,
    dose: bool = False,
) -> list[dict[str, Any]]:
    """`sweep_directions` with one strength per direction: the one that meets the goal.

    Returns:
        One row per persona and layer, as `sweep_directions` has them, with "calibration" added.
        Where the goal cannot be met, the row has no strength and a "reason".
    """
    text = benign_replies(model, pack, adapter, n, seed)
    cells: list[Cell | None] = []
    rows: list[dict[str, Any]] = []
    for persona, direction in chosen_directions(directions, sites, personas):
        row: dict[str, Any] = {"persona": persona, "layer": direction.site.layer, "strength": None}
        try:
            row |= _met(model, pack, direction, goal, text, adapter, schedule, n, seed)
        except RequestError:
            raise
        except PersonaProbeError as error:
            row["reason"] = str(error)
        rows.append(row)
        strength = row["strength"]
        cells.append(None if strength is None else Cell(persona, direction, strength))
    measured = iter(
        measure_cells(
            model,
            pack,
            [cell for cell in cells if cell],
            text if dose else [],
            adapter,
            n,
            seed,
            schedule,
        )
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
    adapter: str | None,
    schedule: str | None,
    n: int,
    seed: int,
) -> dict[str, Any]:
    if goal.kind == "kl":
        found = calibrate(
            model,
            direction,
            text,
            goal.nats,
            schedule=schedule,
            adapter=adapter,
            measure=goal.measure,
            highest=HIGHEST,
        )
        return {"strength": found.strength, "calibration": found.to_json()}
    widest = largest_in_guard(
        model, pack, direction, adapter, schedule, highest=HIGHEST / 2, n=n, seed=seed
    )
    said: dict[str, Any] = {"strength": widest.strength or None, "calibration": widest.to_json()}
    if not widest.strength:
        reasons = "; ".join(widest.reasons)
        said["reason"] = f"not even strength {widest.fails_at:.3g} passes the guards: {reasons}"
    return said
