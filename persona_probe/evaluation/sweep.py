"""What a direction does to the refusal probability, over sites and strengths, in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from persona_probe.activations.contrast import request
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.models.chat import Conversation, Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS, SafetyPrompt
from persona_probe.personas.sampling import spread
from persona_probe.statistics import json_number, mean_interval
from persona_probe.steering.arm import Arm
from persona_probe.steering.dose import doses
from persona_probe.steering.treatment import Treatment, Written

UNSTEERED = "unsteered"


def net_refusal(
    model: ResidualModel,
    pack: Pack,
    prompts: Sequence[SafetyPrompt],
    arms: Sequence[Arm],
    intervals: bool = False,
) -> dict[str, dict[str, Any]]:
    """J on the log-probability channel: refusal on harmful prompts minus refusal on permitted ones.

    Returns:
        Arm → mean probability that a reply begins as one of the pack's refusals does, on harmful
        prompts (`refusal_probability`) and on the others (`over_refusal_probability`), their
        difference (`net`), and the numbers of prompts. With `intervals`, 95% intervals of the
        first two over prompt families, too.
    """
    found = refusal_probability(model, prompts, arms, pack.judge_rules, pack.neutral_system)
    harmful = [prompt.kind == "harmful" for prompt in prompts]
    permitted = [not is_harmful for is_harmful in harmful]
    rows: dict[str, dict[str, Any]] = {}
    for arm, mass in zip(found.arms, found.refusal_mass, strict=True):
        refused, over_refused = float(mass[harmful].mean()), float(mass[permitted].mean())
        rows[arm] = {
            "refusal_probability": refused,
            "over_refusal_probability": over_refused,
            "net": refused - over_refused,
            "n_harmful": sum(harmful),
            "n_permitted": sum(permitted),
        }
        if intervals:
            for name, chosen in (("refusal", harmful), ("over_refusal", permitted)):
                families = [f for f, kept in zip(found.families, chosen, strict=True) if kept]
                interval = mean_interval(mass[chosen].tolist(), families)
                rows[arm][f"{name}_interval"] = [
                    json_number(interval.low),
                    json_number(interval.high),
                ]
    return rows


@dataclass(frozen=True)
class Cell:
    """One persona's direction at one site, or several personas' at once, and one strength.

    Attributes:
        persona: whose; joined by "+" where an operation takes several at once.
        directions: at one site.
        strength: in the units of the operation; `None` where it has none.
    """

    persona: str
    directions: tuple[Direction, ...]
    strength: float | None

    @property
    def layer(self) -> int:
        return self.directions[0].site.layer

    @property
    def name(self) -> str:
        amount = "" if self.strength is None else f"@{self.strength:.6g}"
        return f"{self.persona}/{self.layer}{amount}"

    def to_json(self) -> dict[str, Any]:
        return {"persona": self.persona, "layer": self.layer, "strength": self.strength}


@dataclass(frozen=True)
class Manner:
    """How a sweep steers and what it asks.

    Attributes:
        treatment: what is done along every direction.
        then: further interventions, after it.
        adapter: LoRA adapter that is on.
        n: most prompts of each kind.
        seed: of the split.
    """

    treatment: Treatment = field(default_factory=Treatment)
    then: tuple[Written, ...] = ()
    adapter: str | None = None
    n: int = 60
    seed: int = 0

    def prompts(self, pack: Pack) -> list[SafetyPrompt]:
        """Requests of every kind, from the select part."""
        families = pack.split(self.seed).select
        return [
            prompt
            for kind in KINDS
            for prompt in spread(pack.suite.of(kind=kind, families=families).prompts, self.n)
        ]

    def arm(self, model: ResidualModel, cell: Cell, texts: Sequence[Tokens]) -> Arm:
        """The arm of a cell, for texts that are known."""
        swept = self.treatment.along(cell.directions, cell.strength or 0.0, model, texts)
        further = [i for written in self.then for i in written.interventions(model, texts)]
        return Arm(cell.name, (*swept, *further), self.adapter)


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
    strengths: Sequence[float] = (),
    personas: Sequence[str] | None = None,
    manner: Manner | None = None,
    dose: bool = False,
) -> list[dict[str, Any]]:
    """Every persona, site and strength in one batch, on the prompts kept for selection.

    Args:
        model: left as it was found.
        pack: whose select part is asked.
        directions: persona → site → direction.
        sites: whose directions are tried; sites without one are passed over.
        strengths: in the units of the operation; none for operations without a strength.
        personas: whose directions; all if not given.
        manner: what is done along them, and on what; the defaults if not given.
        dose: measure also what every arm costs on neutral text; see `steering.dose`.

    Returns:
        One row per persona, layer and strength; each has the unsteered model's numbers beside it.

    Raises:
        RequestError: a persona has no direction at any of the sites, or strengths are given for an
            operation that has none, or the other way round.
    """
    manner = manner or Manner()
    has_strength = manner.treatment.has_strength
    if has_strength != bool(strengths):
        raise RequestError(
            f"{manner.treatment.operation} needs strengths; give at least one"
            if has_strength
            else f"{manner.treatment.operation} has no strength; leave strengths out"
        )
    amounts: list[float | None] = list(dict.fromkeys(strengths)) or [None]
    chosen = chosen_directions(directions, sites, personas)
    groups: list[tuple[str, tuple[Direction, ...]]]
    groups = _spans(chosen) if manner.treatment.spans else [(name, (d,)) for name, d in chosen]
    cells = [Cell(name, found, strength) for name, found in groups for strength in amounts]
    text = benign_replies(model, pack, manner.adapter, manner.n, manner.seed) if dose else []
    return measure_cells(model, pack, cells, text, manner)


def measure_cells(
    model: ResidualModel,
    pack: Pack,
    cells: Sequence[Cell],
    neutral: Sequence[Conversation],
    manner: Manner,
) -> list[dict[str, Any]]:
    """One row per cell; with neutral text its dose, too. Arguments as for `sweep_directions`."""
    if not cells:
        return []
    prompts = manner.prompts(pack)
    asked = [
        model.encode(request(prompt, pack.neutral_system), add_generation_prompt=True)
        for prompt in prompts
    ]
    replies = [model.encode(reply, add_generation_prompt=False) for reply in neutral]
    arms = [manner.arm(model, cell, [*asked, *replies]) for cell in cells]
    reference = Arm(UNSTEERED, adapter=manner.adapter)
    found = net_refusal(model, pack, prompts, [reference, *arms], intervals=True)
    rows = [
        {
            **cell.to_json(),
            "operation": manner.treatment.operation,
            **found[cell.name],
            UNSTEERED: found[UNSTEERED],
        }
        for cell in cells
    ]
    if neutral:
        for row, cost in zip(rows, doses(model, neutral, arms, reference), strict=True):
            row["dose"] = cost.to_json()
    return rows


def _spans(chosen: Sequence[tuple[str, Direction]]) -> list[tuple[str, tuple[Direction, ...]]]:
    """At every site, the directions of all personas that have one there."""
    by_site: dict[Site, list[tuple[str, Direction]]] = {}
    for name, direction in chosen:
        by_site.setdefault(direction.site, []).append((name, direction))
    return [
        ("+".join(name for name, _ in several), tuple(d for _, d in several))
        for _, several in sorted(by_site.items())
    ]
