"""The conditions of a study: models, steered models, and the controls beside each claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.directions.checks.controls import norm_matched, sign_flipped
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.parts import shared_part, specific_parts
from persona_probe.models.site import Site
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.study.plan import Study

RANDOM_KINDS = ("random", "covariance", "shuffled")
CONTROL_KINDS = {
    "placebo": "placebo",
    "refusal-only": "refusal_only",
    "shuffled": "shuffled_constitutions",
    "style-only": "style_only",
}
BySite = Mapping[Site, Direction]


@dataclass(frozen=True)
class Condition:
    """An arm, and what a reader needs to know about it.

    Attributes:
        kind: helpful_only, finetuned, broad, steered, steered_shared, steered_specific, ablated,
            ablated_random, ablated_wrong, random, covariance, shuffled, wrong, sign_flip,
            system_prompt, or one of `CONTROL_KINDS`.
        persona: whose effect it is about; `None` for what all personas share.
        layer, strength: where and how strongly it steers, if it does; strength in units of the
            median residual norm.
        seed: of a finetune or of a random direction.
        system: the system line, if it is not the neutral one.
    """

    arm: Arm
    kind: str
    persona: str | None = None
    layer: int | None = None
    strength: float | None = None
    seed: int | None = None
    system: str | None = None

    @property
    def name(self) -> str:
        return self.arm.name

    def about(self) -> dict[str, Any]:
        """The fields that every row of results about this condition begins with."""
        return {"arm": self.name, "arm_kind": self.kind, "persona": self.persona}


def by_system(conditions: Sequence[Condition]) -> dict[str | None, list[Condition]]:
    """Conditions that share a system line, and hence their batches, in order of first use."""
    groups: dict[str | None, list[Condition]] = {}
    for condition in conditions:
        groups.setdefault(condition.system, []).append(condition)
    return groups


@dataclass(frozen=True)
class Choice:
    """Where and how strongly a persona's direction is added, chosen on the select split.

    Attributes:
        strength: in units of the median residual norm at the site.
    """

    site: Site
    strength: float

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.site.layer, "strength": self.strength}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Choice":
        return cls(Site(value["layer"]), value["strength"])


def helpful_only(study: Study) -> Condition:
    """H: the model before safety finetuning."""
    return Condition(Arm("helpful_only", adapter=study.helpful_only), "helpful_only")


def control_finetunes(study: Study) -> list[Condition]:
    """Finetunes that are no persona: placebo, refusal-only, shuffled, style-only."""
    return [
        Condition(Arm(f"{kind}/{seed}", adapter=adapter), CONTROL_KINDS[kind], seed=seed)
        for kind, adapters in study.controls.items()
        for seed, adapter in enumerate(adapters)
    ]


def finetunes(study: Study, persona: str) -> list[Condition]:
    """F: the narrow finetunes, one per seed, and the broad ones."""
    narrow = study.narrow(persona)
    broad = [a for a in study.finetuned[persona].get("broad", ()) if a not in narrow]
    return [
        Condition(Arm(f"{kind}/{persona}/{seed}", adapter=adapter), kind, persona, seed=seed)
        for kind, adapters in (("finetuned", narrow), ("broad", broad))
        for seed, adapter in enumerate(adapters)
    ]


def steered(
    study: Study,
    persona: str,
    direction: Direction,
    strength: float,
    kind: str = "steered",
    seed: int | None = None,
    label: str | None = None,
) -> Condition:
    """S: the model before finetuning with `strength` of a direction added where it was read.

    Args:
        study: whose model before finetuning is steered.
        persona: whose effect the condition is about.
        direction: what is added.
        strength: in units of the median residual norm at the direction's site.
        kind: what the direction is, for controls.
        seed: of a random direction.
        label: tells arms of one kind, persona and seed apart.
    """
    parts = [kind, persona, label, None if seed is None else str(seed)]
    arm = Arm(
        "/".join(part for part in parts if part),
        (Intervention(direction, Add(strength)),),
        study.helpful_only,
    )
    return Condition(arm, kind, persona, direction.site.layer, strength, seed)


def steering_conditions(
    study: Study, directions: DirectionSet, choices: Mapping[str, Choice], persona: str
) -> list[Condition]:
    """The steered model and the deterministic controls: s, p, -v, and the wrong constitutions.

    The shared and the specific part are added at the length they have inside the whole direction,
    so that the three say together what each part does.
    """
    choice = choices[persona]
    site, strength = choice.site, choice.strength
    own = {site: directions[persona][site]}
    whole = own[site]
    found = [steered(study, persona, whole, strength)]
    if len(directions) > 1:
        parts = {
            "steered_shared": shared_part(directions)[site],
            "steered_specific": specific_parts(directions)[persona][site],
        }
        found += [
            steered(study, persona, part, strength * part.gap / whole.gap, kind)
            for kind, part in parts.items()
        ]
    found.append(steered(study, persona, sign_flipped(own)[site], strength, "sign_flip"))
    for other in directions:
        if other != persona:
            wrong = norm_matched({site: directions[other][site]}, own)[site]
            found.append(steered(study, persona, wrong, strength, "wrong", label=other))
    return found


def random_conditions(
    study: Study,
    persona: str,
    choice: Choice,
    draws: Mapping[str, Sequence[BySite]],
) -> list[Condition]:
    """One condition per random direction of each kind, at the chosen site and strength."""
    return [
        steered(study, persona, draw[choice.site], choice.strength, kind, seed)
        for kind, several in draws.items()
        for seed, draw in enumerate(several)
    ]
