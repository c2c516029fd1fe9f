"""What every stage of a study works with: the model, the prompts of each part, the run folder."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from persona_probe.activations.contrast import request
from persona_probe.models.chat import Conversation
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import Diagnostic
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread, spread_items
from persona_probe.personas.splits import Part, Split
from persona_probe.study.plan import Study

UNTRAINED = ("T1", "T2")


@dataclass
class Lab:
    """A study under way. Weights are loaded once, when first needed, and shared by all stages."""

    study: Study
    folder: Path
    device: str = "auto"
    dtype: str | None = None

    @cached_property
    def model(self) -> ResidualModel:
        """The weights, with every adapter to be switched on and off."""
        return load_model(ModelRef(self.study.model), device=self.device, dtype=self.dtype)

    @cached_property
    def pack(self) -> Pack:
        return load_pack(self.study.pack)

    @cached_property
    def split(self) -> Split:
        return self.pack.split(self.study.seed)

    def system_line(self, system: str | None) -> str:
        """A condition's own system line, or the pack's neutral one."""
        return self.pack.neutral_system if system is None else system

    def prompts(
        self, part: Part, kind: str, n: int, tiers: Collection[str] | None = None
    ) -> list[SafetyPrompt]:
        """At most `n` prompts of one part, spread evenly over categories and families."""
        families = getattr(self.split, part)
        chosen = self.pack.suite.of(kind=kind, tiers=tiers, families=families).prompts
        return spread(chosen, n)

    def items(self, part: Part, n: int) -> Diagnostic:
        """At most `n` diagnostic items of one part, spread evenly over dimensions and keys."""
        return spread_items(self.pack.diagnostic.of(getattr(self.split, part)), n)

    def ask(self, prompts: Sequence[SafetyPrompt], system: str | None = None) -> list[Conversation]:
        """The prompts as conversations, under the pack's neutral system line if none is given."""
        line = self.system_line(system)
        return [request(prompt, line) for prompt in prompts]
