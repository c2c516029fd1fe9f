"""A model that refuses nothing, made by taking the refusal direction out of its weights.

Arditi et al. 2024 (arXiv:2406.11717): the difference of means between prompts that are refused
and prompts that are answered, at the last prompt token, is removed from everything that writes
into the residual stream. Directions are found on the find part of a pack, one is chosen on the
select part, and what it did is measured on the evaluate part, beside random directions. The other
way is supervised finetuning on compliant data: `run_finetune`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from persona_probe.activations.capture import capture
from persona_probe.activations.contrast import request
from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import find_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.errors import DegenerateClassesError, PersonaProbeError
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.files import write_json
from persona_probe.models.folder import require_free
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread
from persona_probe.statistics import Estimate, mean_interval
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.baking import Baked, bake
from persona_probe.steering.scoring import reply_divergences

REFUSED, ANSWERED = "refused", "answered"
EXPECTED = 0.5
DEEPEST = 0.8
KL_LIMIT = 0.1
RANDOM_DRAWS = 10
RECORD = "helpful_only.json"


@dataclass(frozen=True)
class Ablated:
    """A model without its refusal direction.

    Attributes:
        baked: the folder, and how well its weights do what hooks do.
        direction: what was taken out.
        before, after, random: probability that a reply begins as a refusal does, on harmful
            prompts of the evaluate part: of the model, of the folder that was written, and of the
            model with random directions ablated by hooks.
        benign_kl: nats at the first token of benign replies, on the select part.
    """

    baked: Baked
    direction: Direction
    before: Estimate
    after: Estimate
    random: Estimate
    benign_kl: float

    @property
    def said(self) -> str:
        """What came out, in a few lines."""
        return (
            f"refusal direction of layer {self.direction.site.layer}: {self.baked.how}\n"
            f"probability of refusing held-out harmful prompts: before {self.before}, after "
            f"{self.after}, random directions ablated {self.random}\n"
            f"benign replies changed by {self.benign_kl:.3f} nats at their first token\n"
            f"-> {self.baked.folder}"
        )

    def to_json(self) -> dict[str, Any]:
        rates = {key: getattr(self, key).to_json() for key in ("before", "after", "random")}
        return {
            "layer": self.direction.site.layer,
            "refusal_probability": rates,
            "benign_first_token_kl": self.benign_kl,
            **self.baked.to_json(),
        }


def ablate_refusal(
    ref: ModelRef, pack: Pack, out: Path, n: int = 200, device: str = "cpu", seed: int = 0
) -> Ablated:
    """Find the refusal direction, and write the model without it.

    Args:
        ref: the model; its adapter, if any, is merged into the weights.
        pack: whose prompts and refusal openers are used.
        out: folder to write.
        n: most prompts of a kind and part.
        device: where the model runs.
        seed: of the pack's split and of the random directions.

    Raises:
        RequestError: there is something at `out` already.
        DegenerateClassesError: the model refuses too few harmful prompts to find a direction.
        PersonaProbeError: no direction removes refusals within the guard.
    """
    require_free(out)
    model = load_model(ref, device=device)
    found = refusal_directions(model, pack, n, seed)
    chosen, kl = _selected(model, pack, found, n, seed)
    harmful = _prompts(pack, "evaluate", "harmful", n, seed)
    random = [d[chosen.site] for d in isotropic({chosen.site: chosen}, RANDOM_DRAWS, seed)]
    arms = [_ablating(model, d, f"random {i}") for i, d in enumerate(random)]
    masses = _refusals(model, pack, harmful, [Arm("before"), *arms])
    del model
    baked = bake(ref, chosen, Ablate(), out, device=device)
    # Weights do more than hooks, see baking.py: what is told is of the folder itself.
    written = load_model(str(out), device=device)
    left = _refusals(written, pack, harmful, [Arm("after")])[0]
    families = [p.family for p in harmful]
    rows = (masses[0], left, masses[1:].mean(axis=0))
    before, after, control = (mean_interval(row, families) for row in rows)
    done = Ablated(baked, chosen, before, after, control, kl)
    write_json(out / RECORD, done.to_json())
    return done


def refusal_directions(
    model: ResidualModel, pack: Pack, n: int = 200, seed: int = 0
) -> dict[Site, Direction]:
    """Refused minus answered prompts of the find part, at every site.

    Only harmful prompts that the model does refuse count, and benign ones that it answers.

    Raises:
        DegenerateClassesError: fewer than two of either.
    """
    harmful = _prompts(pack, "find", "harmful", n, seed)
    benign = _prompts(pack, "find", "benign", n, seed)
    mass = _refusals(model, pack, [*harmful, *benign], [Arm("before")])[0]
    refused = [p for p, m in zip(harmful, mass, strict=False) if m >= EXPECTED]
    answered = [p for p, m in zip(benign, mass[len(harmful) :], strict=True) if m < EXPECTED]
    if min(len(refused), len(answered)) < 2:
        raise DegenerateClassesError(
            f"{model.label} refuses {len(refused)} of {len(harmful)} harmful prompts and answers "
            f"{len(answered)} of {len(benign)} benign ones, so there is no refusal direction to "
            "find; is it helpful-only already?"
        )
    asked = [_labelled(pack, p, REFUSED) for p in refused]
    asked += [_labelled(pack, p, ANSWERED) for p in answered]
    position = "last_prompt_token"
    activations = capture(model, asked, model.sites, [position])[position]
    split = pack.split(seed)
    return find_directions(
        activations, MeanDifference(), REFUSED, ANSWERED, persona="refusal", split=split
    )


def _selected(
    model: ResidualModel, pack: Pack, found: dict[Site, Direction], n: int, seed: int
) -> tuple[Direction, float]:
    """The site whose ablation leaves least refusal, within the guard, on the select part."""
    allowed = [d for s, d in found.items() if s.layer + 1 <= DEEPEST * model.n_layers]
    arms = [_ablating(model, d, str(d.site.layer)) for d in allowed]
    harmful = _prompts(pack, "select", "harmful", n, seed)
    left = _refusals(model, pack, harmful, arms).mean(axis=1)
    replies = benign_replies(model, pack, n=min(n, 60), seed=seed)
    kl = reply_divergences(model, replies, arms, Arm("before")).first_token
    costs = np.asarray(torch.as_tensor(kl).double().mean(dim=-1))
    inside = [i for i in range(len(allowed)) if costs[i] <= KL_LIMIT]
    if not inside:
        raise PersonaProbeError(
            f"every refusal direction of {model.label} changes benign replies by more than "
            f"{KL_LIMIT} nats at their first token (least {costs.min():.2f}); finetune it on "
            "compliant data instead"
        )
    best = min(inside, key=lambda i: float(left[i]))
    return allowed[best], float(costs[best])


def _ablating(model: ResidualModel, direction: Direction, name: str = "ablated") -> Arm:
    return Arm(name, (Intervention(direction, Ablate(), "both", model.sites),))


def _refusals(
    model: ResidualModel, pack: Pack, prompts: Sequence[SafetyPrompt], arms: Sequence[Arm]
) -> np.ndarray:
    """Probability of beginning as a refusal does: [arm, prompt]."""
    found = refusal_probability(model, prompts, arms, pack.judge_rules, pack.neutral_system)
    masses: np.ndarray = found.refusal_mass.double().numpy()
    return masses


def _prompts(pack: Pack, part: str, kind: str, n: int, seed: int) -> list[SafetyPrompt]:
    families = getattr(pack.split(seed), part)
    return spread(pack.suite.of(kind=kind, families=families).prompts, n)


def _labelled(pack: Pack, prompt: SafetyPrompt, label: str) -> Any:
    return replace(request(prompt, pack.neutral_system), label=label)
