"""What every stage of a study works with: the models, the prompts of each part, the run folder."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from persona_probe.activations.contrast import request
from persona_probe.directions.finder import Finder
from persona_probe.directions.finders import finder_named
from persona_probe.evaluation import Bench, judge_named
from persona_probe.evaluation.judge import Judge
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.models.chat import Conversation
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.residual_model import ResidualModel
from persona_probe.personas.diagnostic import Diagnostic
from persona_probe.personas.pack import Pack, load_pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.sampling import spread, spread_items
from persona_probe.personas.splits import Part, Split
from persona_probe.personas.suite_file import load_suite
from persona_probe.study.arms import Condition
from persona_probe.study.plan import Study

UNTRAINED = ("T1", "T2")
FREE_JUDGE, KEPT = "phrases", "judgements"
MOST_KEPT = 8 * 2**30  # bytes of whole finetuned models that stay loaded beside the main one


@dataclass
class Lab:
    """A study under way. Weights are loaded when first needed, and shared by all stages."""

    study: Study
    folder: Path
    device: str = "auto"
    dtype: str | None = None
    _checkpoints: dict[str, ResidualModel] = field(default_factory=dict)

    @cached_property
    def model(self) -> ResidualModel:
        """The weights, with every adapter to be switched on and off."""
        return load_model(ModelRef(self.study.model), device=self.device, dtype=self.dtype)

    def network(self, checkpoint: str | None) -> ResidualModel:
        """The study's model, or a finetune that is a whole model of its own."""
        if checkpoint is None:
            return self.model
        if checkpoint not in self._checkpoints:
            while self._checkpoints and sum(map(_bytes, self._checkpoints.values())) > MOST_KEPT:
                del self._checkpoints[next(iter(self._checkpoints))]
            self._checkpoints[checkpoint] = load_model(
                ModelRef(checkpoint), device=self.device, dtype=self.dtype
            )
        return self._checkpoints[checkpoint]

    def together(
        self, conditions: Sequence[Condition]
    ) -> Iterator[tuple[ResidualModel, str, list[Condition]]]:
        """Conditions that share batches: the model, its system line, and the conditions.

        A direction that acts in a finetune of its own weights is read as one of that model.
        """
        groups: dict[tuple[str | None, str | None], list[Condition]] = {}
        for condition in conditions:
            groups.setdefault((condition.checkpoint, condition.system), []).append(condition)
        for (checkpoint, system), several in groups.items():
            model = self.network(checkpoint)
            fitted = several if checkpoint is None else [c.fitted(model) for c in several]
            yield model, self.system_line(system), fitted

    @cached_property
    def judge(self) -> Judge:
        """Who reads the replies."""
        return self._judge(self.study.judge)

    @cached_property
    def second_judge(self) -> Judge | None:
        """Who reads them again, if anybody does."""
        name = self.study.second_judge
        return None if name is None else self._judge(name)

    def _judge(self, name: str) -> Judge:
        """A judge by the name that a plan gives it; its model is this one where it is the same."""
        return judge_named(name, Bench(self.pack, self._load_judge))

    @cached_property
    def kept(self) -> JudgementCache | None:
        """What judges that cost something have said in this run."""
        return None if self.study.judge == FREE_JUDGE else JudgementCache(self.folder / KEPT)

    def _load_judge(self, name: str) -> ResidualModel:
        return self.model if name == self.study.model else self.network(name)

    @cached_property
    def finder(self) -> Finder:
        return finder_named(self.study.finder)

    @cached_property
    def pack(self) -> Pack:
        pack = load_pack(self.study.pack)
        suite = self.study.suite
        return pack if suite is None else pack.with_suite(load_suite(suite))

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


def _bytes(model: ResidualModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.network.parameters())
