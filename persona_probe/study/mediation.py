"""Mediation on fixed text: how much of finetuning's effect passes through the direction?

    TE   = Y(F) - Y(H)
    NIE  = Y(H with F's component along the direction) - Y(H)      enough by itself
    NDE  = Y(F with H's component along the direction) - Y(H)      what is left without it
    proportion mediated = NIE / TE,  interaction = TE - NIE - NDE

Vig et al. 2020, arXiv:2004.12265. Both models read the same tokens, and the component is exchanged
token by token, so nothing is generated: Y is the refusal probability after a request, or the
margin between two fixed replies. Exchanged at the chosen site or at every site; random directions
exchanged at every site say what any direction carries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.activations.contrast import request
from persona_probe.directions.checks.controls import isotropic
from persona_probe.models.chat import Tokens
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate, function_of_means, ratio_of_functions
from persona_probe.steering.arm import Arm
from persona_probe.study.arms import FINETUNED, BySite, Condition, finetunes, helpful_only
from persona_probe.study.channels import margin_channel, preference_channel, with_pairs
from persona_probe.study.components import patches
from persona_probe.study.lab import Lab
from persona_probe.study.trial import Trial

RANDOM_DRAWS = 3
MEASURES = ("refusal_probability", "margin")
Values = Float[np.ndarray, " prompt"]


@dataclass(frozen=True)
class Exchange:
    """What each prompt does in four models on the same tokens.

    Attributes:
        persona, scope: of the finetuned model F.
        measure: "refusal_probability", or "margin" in nats per token.
        sites: "chosen" or "all".
        kind: "direction" or "random".
        seed: of a random direction.
        families: of the prompts.
        before, after: H and F as they are.
        before_with, after_with: each with the other's component.
    """

    persona: str
    scope: str
    measure: str
    sites: str
    kind: str
    seed: int | None
    families: tuple[str, ...]
    before: Values
    after: Values
    before_with: Values
    after_with: Values

    def effects(self, **options: Any) -> dict[str, Estimate]:
        """TE, NIE, NDE, interaction and the proportion mediated, with clustered intervals."""
        columns = np.column_stack([self.before, self.after, self.before_with, self.after_with])
        h, f, nie, nde = 0, 1, 2, 3

        def mean(function: Any) -> Estimate:
            return function_of_means(columns, self.families, function, **options)

        return {
            "TE": mean(lambda m: m[:, f] - m[:, h]),
            "NIE": mean(lambda m: m[:, nie] - m[:, h]),
            "NDE": mean(lambda m: m[:, nde] - m[:, h]),
            "interaction": mean(lambda m: m[:, f] - m[:, nie] - m[:, nde] + m[:, h]),
            "proportion": ratio_of_functions(
                columns,
                self.families,
                lambda m: m[:, nie] - m[:, h],
                lambda m: m[:, f] - m[:, h],
                **options,
            ),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            key: [round(float(v), 6) for v in value] if isinstance(value, np.ndarray) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Exchange":
        arrays = ("before", "after", "before_with", "after_with")
        found = {key: np.array(value[key], dtype=np.float64) for key in arrays}
        return cls(**{**value, **found, "families": tuple(value["families"])})


def exchanges(trial: Trial, persona: str) -> list[Exchange]:
    """Every exchange of one persona, for the first finetune of each scope."""
    found = []
    study = trial.lab.study
    for scope in study.scopes(persona):
        finetuned = next(c for c in finetunes(study, persona) if c.kind == FINETUNED[scope])
        for measure in MEASURES:
            prompts = trial.band if measure == MEASURES[0] else with_pairs(trial.half_band)
            if prompts:
                found += _measured(trial, persona, scope, finetuned, measure, prompts)
    return found


def _measured(
    trial: Trial,
    persona: str,
    scope: str,
    finetuned: Condition,
    measure: str,
    prompts: Sequence[SafetyPrompt],
) -> list[Exchange]:
    lab, own = trial.lab, trial.directions[persona]
    site = trial.choices[persona].site
    cases: list[tuple[str, str, int | None, BySite]] = [
        ("chosen", "direction", None, {site: own[site]}),
        ("all", "direction", None, own),
    ]
    for seed, draw in enumerate(isotropic(own, RANDOM_DRAWS, lab.study.seed)):
        cases.append(("all", "random", seed, draw))
    before = helpful_only(lab.study)
    conditions = [before, finetuned]
    texts = _texts(lab, prompts, measure)
    # A reply that is scored has a component at its own tokens, too.
    schedule = None if measure == MEASURES[0] else "both"
    for name, source, target in (
        ("before_with", finetuned, before),
        ("after_with", before, finetuned),
    ):
        giver = lab.network(source.checkpoint)
        several = patches(
            giver, source.arm.adapter, texts, [directions for *_, directions in cases], schedule
        )
        conditions += [
            replace(target, arm=Arm(f"{name}/{number}", edits, target.arm.adapter))
            for number, edits in enumerate(several)
        ]
    channel = preference_channel if measure == MEASURES[0] else margin_channel
    values = channel(lab, conditions, prompts)
    return [
        Exchange(
            persona,
            scope,
            measure,
            sites,
            kind,
            seed,
            tuple(prompt.family for prompt in prompts),
            values[before.name],
            values[finetuned.name],
            values[f"before_with/{number}"],
            values[f"after_with/{number}"],
        )
        for number, (sites, kind, seed, _) in enumerate(cases)
    ]


def _texts(lab: Lab, prompts: Sequence[SafetyPrompt], measure: str) -> list[Tokens]:
    """Exactly the tokens that the channel will run."""
    asked = [request(prompt, lab.pack.neutral_system) for prompt in prompts]
    if measure == MEASURES[0]:
        return [lab.model.encode(conversation, True) for conversation in asked]
    given = [
        conversation.with_reply(reply or "")
        for conversation, prompt in zip(asked, prompts, strict=True)
        for reply in (prompt.safe_reply, prompt.harmful_reply)
    ]
    return [lab.model.encode(conversation, False) for conversation in given]


def mediation_rows(found: Sequence[Exchange], **options: Any) -> list[dict[str, Any]]:
    """One row per exchange: its effects with intervals."""
    return [
        {
            "persona": exchange.persona,
            "scope": exchange.scope,
            "measure": exchange.measure,
            "sites": exchange.sites,
            "kind": exchange.kind,
            "seed": exchange.seed,
            "n": len(exchange.families),
        }
        | {name: estimate.to_json() for name, estimate in exchange.effects(**options).items()}
        for exchange in found
    ]
