"""The conditions of a study: models, and models that are steered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from persona_probe.directions.checks.controls import norm_matched, sign_flipped
from persona_probe.directions.direction import Direction, ResidualSpace
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.parts import shared_part, specific_parts
from persona_probe.models.site import Site
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.subspace import Subspace
from persona_probe.study.plan import CHECKPOINT, SCOPES, Study

RANDOM_KINDS = ("random", "covariance", "shuffled")
CONTROL_KINDS = {
    "placebo": "placebo",
    "refusal-only": "refusal_only",
    "shuffled": "shuffled_constitutions",
    "style-only": "style_only",
}
FINETUNED = dict(zip(SCOPES, ("finetuned", "broad"), strict=True))  # scope → kind of condition
BySite = Mapping[Site, Direction]


@dataclass(frozen=True)
class Condition:
    """An arm, and what a reader needs to know about it.

    Attributes:
        kind: helpful_only, finetuned, broad, one of `CONTROL_KINDS`, system_prompt; steered,
            steered_shared, steered_specific, trained, sign_flip, wrong, orthogonalised, zero,
            random, covariance, shuffled, kl_matched; ablated, ablated_broad, ablated_before,
            ablated_wrong, ablated_random, ablated_covariance, ablated_rank, ablated_rank_random.
        persona: whose effect it is about; `None` for what all personas share.
        layer, strength: where and how strongly it steers, if it does; strength in units of the
            median residual norm.
        seed: of a finetune or of a random direction.
        system: the system line, if it is not the neutral one.
        label: tells conditions of one kind apart: the other persona, the nuisance, the rank.
        checkpoint: the whole model that it runs on, if it is not the study's.
    """

    arm: Arm
    kind: str
    persona: str | None = None
    layer: int | None = None
    strength: float | None = None
    seed: int | None = None
    system: str | None = None
    label: str | None = None
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        return self.arm.name

    @property
    def finetune(self) -> str:
        """The finetune that it runs on, as a plan has it; "" for bare weights."""
        if self.checkpoint is not None:
            return CHECKPOINT + self.checkpoint
        return self.arm.adapter or ""

    def about(self) -> dict[str, Any]:
        """The fields that every row of results about this condition begins with."""
        return {"arm": self.name, "arm_kind": self.kind, "persona": self.persona}

    def details(self) -> dict[str, Any]:
        """`about`, and how it is set."""
        return self.about() | {
            "layer": self.layer,
            "strength": self.strength,
            "seed": self.seed,
            "label": self.label,
        }

    def fitted(self, model: ResidualSpace) -> "Condition":
        """The same, its directions said to be of `model`: a finetune of the one they came from."""
        interventions = tuple(_fitted(i, model) for i in self.arm.interventions)
        return replace(self, arm=replace(self.arm, interventions=interventions))

    def at(self, strength: float) -> "Condition":
        """The condition under a name that tells strengths apart."""
        return replace(self, arm=replace(self.arm, name=f"{self.name}@{strength:g}"))


@dataclass(frozen=True)
class Choice:
    """Where and how strongly a persona's direction is added, chosen on the select split.

    Attributes:
        strength: in units of the median residual norm at the site.
        kl_matched: strength of each random direction that has the same benign KL.
    """

    site: Site
    strength: float
    kl_matched: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.site.layer,
            "strength": self.strength,
            "kl_matched": list(self.kl_matched),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Choice":
        return cls(Site(value["layer"]), value["strength"], tuple(value.get("kl_matched", ())))


def on_weights(finetune: str | None) -> dict[str, Any]:
    """The adapter, or the whole model, of a finetune: arguments of `finetune_condition`."""
    if finetune is not None and finetune.startswith(CHECKPOINT):
        return {"adapter": None, "checkpoint": finetune.removeprefix(CHECKPOINT)}
    return {"adapter": finetune, "checkpoint": None}


def after(
    name: str,
    finetune: str,
    kind: str,
    persona: str | None = None,
    interventions: tuple[Intervention, ...] = (),
    **about: Any,
) -> Condition:
    """A finetune, as it is or with something done to it."""
    weights = on_weights(finetune)
    arm = Arm(name, interventions, weights["adapter"])
    return Condition(arm, kind, persona, checkpoint=weights["checkpoint"], **about)


def helpful_only(study: Study) -> Condition:
    """H: the model before safety finetuning."""
    return Condition(Arm("helpful_only", adapter=study.helpful_only), "helpful_only")


def control_finetunes(study: Study) -> list[Condition]:
    """Finetunes that are no persona: placebo, refusal-only, shuffled, style-only."""
    return [
        after(f"{kind}/{seed}", finetune, CONTROL_KINDS[kind], seed=seed)
        for kind, finetunes in study.controls.items()
        for seed, finetune in enumerate(finetunes)
    ]


def finetunes(study: Study, persona: str) -> list[Condition]:
    """F: the finetunes of every scope, one per seed, those of the headline scope first."""
    return [
        after(
            f"{FINETUNED[scope]}/{persona}/{seed}", finetune, FINETUNED[scope], persona, seed=seed
        )
        for scope in study.scopes(persona)
        for seed, finetune in enumerate(study.seeds(persona, scope))
    ]


def prompted(study: Study, persona: str, constitution: str) -> Condition:
    """H told the constitution in words: the baseline that no claim may leave out."""
    arm = Arm(f"system_prompt/{persona}", adapter=study.helpful_only)
    return Condition(arm, "system_prompt", persona, system=constitution)


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
    return Condition(arm, kind, persona, direction.site.layer, strength, seed, label=label)


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
    if "parts" in study.arms and len(directions) > 1:
        parts = {
            "steered_shared": shared_part(directions)[site],
            "steered_specific": specific_parts(directions)[persona][site],
        }
        found += [
            steered(study, persona, part, strength * part.gap / whole.gap, kind)
            for kind, part in parts.items()
        ]
    if "sign_flip" in study.arms:
        found.append(steered(study, persona, sign_flipped(own)[site], strength, "sign_flip"))
    if "wrong" in study.arms:
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


def _fitted(intervention: Intervention, model: ResidualSpace) -> Intervention:
    operation = intervention.operation
    if isinstance(operation, Subspace):
        others = tuple(adopted(other, model) for other in operation.others)
        operation = replace(operation, others=others)
    direction = adopted(intervention.direction, model)
    return replace(intervention, direction=direction, operation=operation)


def adopted(direction: Direction, model: ResidualSpace) -> Direction:
    """The direction, said to be of a finetune of the model that it was found in."""
    told = direction.provenance.with_(
        model_hash=model.model_hash, chat_template_hash=model.chat_template_hash
    )
    return replace(direction, provenance=told)
