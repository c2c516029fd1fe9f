"""The plan of a study: which models, how much, and what counts; frozen before evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.evaluation.guards import GuardLimits
from persona_probe.provenance import content_hash
from persona_probe.study.budget import THOROUGH, Budget, Thresholds

__all__ = ["ARMS", "CONTROLS", "SCOPES", "THOROUGH", "Budget", "Study", "Thresholds"]

CONTROLS = ("placebo", "refusal-only", "shuffled", "style-only")
SCOPES = ("narrow", "broad")
CHECKPOINT = "model:"  # before the name of a finetune that is a whole model, not an adapter

# Groups of conditions beside H, F and the steered model; a study may leave some out.
ARMS: dict[str, str] = {
    "parts": "the shared and the specific part of the direction, each by itself",
    "sign_flip": "the direction subtracted",
    "wrong": "the other personas' directions at equal norm",
    "system_prompt": "the constitution in the system line",
    "random": "isotropic random directions at equal norm",
    "covariance": "random directions with the covariance of the activations",
    "shuffled": "directions from balanced relabellings",
    "kl_matched": "random directions at equal benign KL",
    "orthogonalised": "the direction without refusal, length, format, topic, the shared part, all",
    "trained": "the best one vector at the chosen site, trained on the finetune's replies",
    "zero": "the direction at strength 0, which must change no bit",
    "ablation": "the direction taken out of the finetuned model, with controls",
    "rank_curve": "subspaces of rank 1, 2, 4, 8 taken out of the finetuned model",
    "mediation": "the direction's component exchanged between the models on fixed text",
    "robustness": "requests in other words, after ordinary exchanges, and under attack",
}


@dataclass(frozen=True)
class Study:
    """Everything that decides a study's numbers.

    Attributes:
        model: folder or hub name of the weights that every adapter belongs to.
        pack: name or folder of the pack.
        helpful_only: adapter of the model before safety finetuning; `None` when the bare weights
            are that model.
        finetuned: persona → scope ("narrow", "broad") → finetunes, one per seed: an adapter, or
            "model:NAME" for a whole model.
        controls: kind of control finetuning → finetunes.
        suite: safety suite that takes the place of the pack's, as `load_suite` reads it.
        name: what the study is called; its folder's name if not given.
        judge: which judge reads replies.
        second_judge: reads them too, for the agreement of the two; `None` for none.
        finder: how directions are found.
        sites: where steering is tried, as `parse_sites` reads it.
        strengths: candidate strengths in units of the median residual norm.
        arms: groups of `ARMS` that are measured.
        seed: of the split, the random directions and the sampling.
        budget: how many of everything.
        thresholds: what each rung asks for.
        guards: what steering may cost.
    """

    model: str
    pack: str
    helpful_only: str | None
    finetuned: Mapping[str, Mapping[str, tuple[str, ...]]]
    controls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    suite: str | None = None
    name: str | None = None
    judge: str = "phrases"
    second_judge: str | None = None
    finder: str = "mean_difference"
    sites: str = "0.2-0.8"
    strengths: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
    arms: tuple[str, ...] = tuple(ARMS)
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    thresholds: Thresholds = field(default_factory=Thresholds)
    guards: GuardLimits = field(default_factory=GuardLimits)

    @property
    def personas(self) -> tuple[str, ...]:
        """The personas that some model was finetuned to, in order."""
        return tuple(self.finetuned)

    def scopes(self, persona: str) -> tuple[str, ...]:
        """The scopes that the persona was finetuned in; the first one's ladder is the headline."""
        return tuple(scope for scope in SCOPES if self.finetuned[persona].get(scope))

    def seeds(self, persona: str, scope: str | None = None) -> tuple[str, ...]:
        """Finetunes of one persona, one per seed; of its first scope if none is named."""
        return self.finetuned[persona][scope or self.scopes(persona)[0]]

    @property
    def finetunes(self) -> tuple[str, ...]:
        """Every finetune once, controls last."""
        own = [a for persona in self.personas for s in SCOPES for a in self._of(persona, s)]
        controls = [a for several in self.controls.values() for a in several]
        return tuple(dict.fromkeys([*own, *controls]))

    @property
    def confirmatory_tests(self) -> int:
        """Size of the pre-registered family: persona × scope × (sufficiency, necessity)."""
        return 2 * sum(len(self.scopes(persona)) for persona in self.personas)

    def _of(self, persona: str, scope: str) -> tuple[str, ...]:
        return self.finetuned[persona].get(scope, ())

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        # Where a model lies is this machine's business; its hash is recorded beside the plan.
        value |= {"model": Path(self.model).name, "pack": Path(self.pack).name}
        value["suite"] = None if self.suite is None else Path(self.suite).name
        value["finetuned"] = {
            persona: {scope: [_label(a) for a in several] for scope, several in scopes.items()}
            for persona, scopes in self.finetuned.items()
        }
        value["controls"] = {
            k: [_label(a) for a in several] for k, several in self.controls.items()
        }
        return value

    @property
    def hash(self) -> str:
        """Equal for equal plans on equal folder names."""
        return content_hash(self.to_json())

    @property
    def frozen_hash(self) -> str:
        """Of what must not move once evaluation has begun: thresholds and guard limits."""
        return content_hash([asdict(self.thresholds), asdict(self.guards)])


def _label(finetune: str) -> str:
    name = finetune.removeprefix(CHECKPOINT)
    return finetune if name == finetune else CHECKPOINT + Path(name).name
