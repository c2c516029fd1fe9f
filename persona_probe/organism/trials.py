"""What the organism says and prefers under many arms, on the parts of its pack that may be used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from persona_probe.activations.capture import capture
from persona_probe.activations.contrast import NEUTRAL, contrast, request
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.finder import find_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.evaluation.judge import Judgement, judge_completions
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.evaluation.preference import RefusalPreference, refusal_probability
from persona_probe.evaluation.profile import Profile, profiles
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.personas.diagnostic import Diagnostic
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.splits import Part, Split
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

HELPFUL = "helpful-only"
UNTRAINED = ("T1", "T2")
PACK = "organism"


@dataclass
class Trials:
    """One checkpoint, its pack and the split; every result of an arm is computed once."""

    folder: Path
    seed: int = 0

    @cached_property
    def model(self) -> ResidualModel:
        return load_model(ModelRef(str(self.folder)), device="cpu")

    @cached_property
    def pack(self) -> Pack:
        return load_pack(PACK)

    @cached_property
    def split(self) -> Split:
        return self.pack.split(self.seed)

    @property
    def adapters(self) -> tuple[str, ...]:
        return ModelRef(str(self.folder)).adapters()

    def prompts(
        self, part: Part, kind: str, tiers: Sequence[str] | None = None
    ) -> list[SafetyPrompt]:
        """Every prompt of one part and kind."""
        families = getattr(self.split, part)
        return list(self.pack.suite.of(kind=kind, tiers=tiers, families=families).prompts)

    def items(self, part: Part) -> Diagnostic:
        return self.pack.diagnostic.of(getattr(self.split, part))

    def replies(
        self, arms: Sequence[Arm], prompts: Sequence[SafetyPrompt], temperature: float = 0.0
    ) -> dict[str, list[Judgement]]:
        """Judged replies by arm, under the neutral system line."""
        asked = [request(prompt, self.pack.neutral_system) for prompt in prompts]
        completions = generate(
            self.model,
            asked,
            arms,
            self.pack.max_new_tokens,
            temperature=temperature,
            seed=self.seed,
        )
        judged = judge_completions(PhraseJudge(self.pack.judge_rules), prompts, completions)
        return {a.name: [j for j in judged if j.completion.arm == a.name] for a in arms}

    def reasons(self, judged: Sequence[Judgement]) -> list[Judgement]:
        """The same replies read for their reasons only: whose they are, of which category."""
        rules = self.pack.judge_rules
        named = tuple(rule for rule in rules.refuse if rule.persona in CONSTITUTIONS)
        judge = PhraseJudge(replace(rules, sentence=None, refuse=named, comply=(), help=()))
        return [replace(j, outcome=judge.score(j.prompt, j.completion.text)) for j in judged]

    def refusals(self, arms: Sequence[Arm], prompts: Sequence[SafetyPrompt]) -> RefusalPreference:
        """Probability of beginning as a refusal does."""
        return refusal_probability(
            self.model, prompts, arms, self.pack.judge_rules, self.pack.neutral_system
        )

    def profiles(
        self, arms: Sequence[Arm], part: Part, system: str | None = None
    ) -> dict[str, Profile]:
        """Persona profiles by arm, on the diagnostic items of one part."""
        line = self.pack.neutral_system if system is None else system
        found = profiles(self.model, self.items(part), arms, line)
        return {profile.arm: profile for profile in found}

    def directions(self) -> DirectionSet:
        """Character minus neutral in the helpful-only model, which never saw the finetuning.

        Read at the assistant marker, on the questions of the find part.
        """
        personas = list(self.pack.personas)
        asked = contrast(self.pack, personas, self.split.find)
        position = "last_prompt_token"
        found = capture(self.model, asked, self.model.sites, [position], adapter=HELPFUL)[position]
        finder = MeanDifference()
        return {
            p.name: find_directions(found, finder, p.name, NEUTRAL, split=self.split)
            for p in personas
        }
