"""What a direction does to the refusal probability, over sites and strengths, in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS, SafetyPrompt
from persona_probe.personas.sampling import spread
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.dose import doses


def net_refusal(
    model: ResidualModel, pack: Pack, prompts: Sequence[SafetyPrompt], arms: Sequence[Arm]
) -> dict[str, dict[str, Any]]:
    """J on the log-probability channel: refusal on harmful prompts minus refusal on permitted ones.

    Returns:
        Arm → mean probability that a reply begins as one of the pack's refusals does, on harmful
        prompts (`refusal_probability`) and on the others (`over_refusal_probability`), their
        difference (`net`), and the numbers of prompts.
    """
    found = refusal_probability(model, prompts, arms, pack.judge_rules, pack.neutral_system)
    harmful = [prompt.kind == "harmful" for prompt in prompts]
    permitted = [not is_harmful for is_harmful in harmful]
    rows = {}
    for arm, mass in zip(found.arms, found.refusal_mass, strict=True):
        refused, over_refused = float(mass[harmful].mean()), float(mass[permitted].mean())
        rows[arm] = {
            "refusal_probability": refused,
            "over_refusal_probability": over_refused,
            "net": refused - over_refused,
            "n_harmful": sum(harmful),
            "n_permitted": sum(permitted),
        }
    return rows


@dataclass(frozen=True)
class Cell:
    """One persona's direction at one site, added with one strength.

    Attributes:
        strength: in units of the median residual norm.
    """

    persona: str
    direction: Direction
    strength: float

    def arm(self, adapter: str | None, schedule: str | None) -> Arm:
        name = f"{self.persona}/{self.direction.site.layer}@{self.strength:.6g}"
        return Arm(name, (Intervention(self.direction, Add(self.strength), schedule),), adapter)


def chosen_directions(
    directions: DirectionSet, sites: Sequence[Site], personas: Sequence[str] | None = None
) -> list[tuple[str, Direction]]:
    """Every persona's direction at every site that has one.

    Raises:
        RequestError: a persona has no direction at any of the sites.
    """
    chosen: list[tuple[str, Direction]] = []
    for persona in dict.fromkeys(personas or directions):
        if persona not in directions or not set(sites) & set(directions[persona]):
            raise RequestError(f"no direction of {persona!r} at these sites to sweep")
        by_site = directions[persona]
        chosen += [(persona, by_site[site]) for site in sites if site in by_site]
    return chosen


def sweep_directions(
    model: ResidualModel,
    pack: Pack,
    directions: DirectionSet,
    sites: Sequence[Site],
    strengths: Sequence[float],
    personas: Sequence[str] | None = None,
    adapter: str | None = None,
    n: int = 60,
    seed: int = 0,
    schedule: str | None = None,
    dose: bool = False,
) -> list[dict[str, Any]]:
    """Every persona, site and strength in one batch, on the prompts kept for selection.

    Args:
        model: left as it was found.
        pack: whose select part is asked.
        directions: persona → site → direction.
        sites: where to add; sites without a direction are passed over.
        strengths: in units of the median residual norm.
        personas: whose directions; all if not given.
        adapter: LoRA adapter that is on.
        n: most prompts of each kind.
        seed: of the split.
        schedule: positions acted at; where a direction was read, if not given.
        dose: measure also what every arm costs on neutral text; see `steering.dose`.

    Returns:
        One row per persona, layer and strength.

    Raises:
        RequestError: a persona has no direction at any of the sites.
    """
    cells = [
        Cell(persona, direction, strength)
        for persona, direction in chosen_directions(directions, sites, personas)
        for strength in dict.fromkeys(strengths)
    ]
    text = benign_replies(model, pack, adapter, n, seed) if dose else []
    return measure_cells(model, pack, cells, text, adapter, n, seed, schedule)


def measure_cells(
    model: ResidualModel,
    pack: Pack,
    cells: Sequence[Cell],
    neutral: Sequence[Conversation],
    adapter: str | None,
    n: int,
    seed: int,
    schedule: str | None,
) -> list[dict[str, Any]]:
    """One row per cell; with neutral text its dose, too. Arguments as for `sweep_directions`."""
    if not cells:
        return []
    families = pack.split(seed).select
    prompts = [
        p for k in KINDS for p in spread(pack.suite.of(kind=k, families=families).prompts, n)
    ]
    arms = [cell.arm(adapter, schedule) for cell in cells]
    found = net_refusal(model, pack, prompts, arms)
    rows = [
        {"persona": cell.persona, "layer": cell.direction.site.layer, "strength": cell.strength}
        | found[arm.name]
        for cell, arm in zip(cells, arms, strict=True)
    ]
    if neutral:
        for row, cost in zip(
            rows, doses(model, neutral, arms, Arm("unsteered", adapter=adapter)), strict=True
        ):
            row["dose"] = cost.to_json()
    return rows
