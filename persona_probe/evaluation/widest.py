"""The largest strength at which a model is still itself: every guard, at every strength tried."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.activations.contrast import request
from persona_probe.directions.direction import Direction
from persona_probe.evaluation.guards import (
    Divergence,
    GuardLimits,
    Guards,
    benign_divergences,
    side_effects,
)
from persona_probe.evaluation.judge import Judgement, judge_completions
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS
from persona_probe.personas.sampling import spread
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.calibration import Widest, largest_passing
from persona_probe.steering.condition import Condition
from persona_probe.steering.generation import generate
from persona_probe.steering.operation import Operation

UNSTEERED = "unsteered"


@dataclass(frozen=True)
class GuardedStrength:
    """How far one may go, and what stopped one there.

    Attributes:
        strength: the largest that passed, as every smaller one that was tried; 0 for none.
        fails_at: the smallest that failed; `None` when everything up to the highest passed.
        reasons: which guards failed there.
        guards: strength → what was measured.
    """

    strength: float
    fails_at: float | None
    reasons: tuple[str, ...]
    guards: dict[float, Guards]

    def to_json(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "fails_at": self.fails_at,
            "reasons": list(self.reasons),
            "tried": [[s, g.to_json()] for s, g in sorted(self.guards.items())],
        }


def largest_in_guard(
    model: ResidualModel,
    pack: Pack,
    direction: Direction,
    adapter: str | None = None,
    schedule: str | None = None,
    limits: GuardLimits | None = None,
    operation: Callable[[float], Operation] = Add,
    sites: tuple[Site, ...] | None = None,
    condition: Condition | None = None,
    highest: float = 2.0,
    precision: float = 0.05,
    n: int = 60,
    seed: int = 0,
) -> GuardedStrength:
    """Search for the largest strength that passes every guard, on the select part of a pack.

    There is no finetune to compare with: the unsteered model takes its place.

    Args:
        model: left as it was found.
        pack: whose prompts are asked and whose phrases judge the replies.
        direction: what is steered along.
        adapter: LoRA adapter that is on.
        schedule: positions acted at; where the direction was read, if not given.
        limits: the defaults if not given.
        operation: strength → operation.
        sites: sites acted at; the direction's own, if not given.
        condition: when; always, if not given.
        highest: largest strength tried, in the units of the operation.
        precision: stop when the gap to the smallest failure is this share of it.
        n: most prompts of each kind.
        seed: of the split.
    """

    def arm(strength: float) -> Arm:
        acting = Intervention(direction, operation(strength), schedule, sites, condition)
        return Arm(repr(strength), (acting,), adapter)

    measure = _Measure(model, pack, arm, adapter, limits or GuardLimits(), n, seed)
    found: Widest = largest_passing(measure, highest, precision)
    reasons = () if found.fails_at is None else measure.guards[found.fails_at].reasons
    return GuardedStrength(found.strength, found.fails_at, reasons, measure.guards)


class _Measure:
    """Guards of several strengths at once; called by the search."""

    def __init__(
        self,
        model: ResidualModel,
        pack: Pack,
        arm: Callable[[float], Arm],
        adapter: str | None,
        limits: GuardLimits,
        n: int,
        seed: int,
    ) -> None:
        families = pack.split(seed).select
        self.guards: dict[float, Guards] = {}
        self._model, self._pack, self._limits = model, pack, limits
        self._arm, self._adapter = arm, adapter
        self._prompts = [
            p for k in KINDS for p in spread(pack.suite.of(kind=k, families=families).prompts, n)
        ]
        self._benign = benign_replies(model, pack, adapter, n, seed)
        self._before = self._judged([Arm(UNSTEERED, adapter=adapter)])[UNSTEERED]

    def __call__(self, strengths: Sequence[float]) -> list[bool]:
        arms = [self._arm(strength) for strength in strengths]
        judged = self._judged(arms)
        reference = Arm(UNSTEERED, adapter=self._adapter)
        divergences = benign_divergences(self._model, self._benign, arms, reference)
        unsteered = side_effects(self._before, self._before, Divergence(0.0, 0.0))
        for strength, arm in zip(strengths, arms, strict=True):
            cost = side_effects(judged[arm.name], self._before, divergences[arm.name])
            self.guards[strength] = Guards(cost, unsteered, self._limits)
        return [self.guards[strength].passed for strength in strengths]

    def _judged(self, arms: Sequence[Arm]) -> dict[str, list[Judgement]]:
        completions = generate(
            self._model,
            [request(p, self._pack.neutral_system) for p in self._prompts],
            arms,
            self._pack.max_new_tokens,
            description="Replies for guards",
        )
        judge = PhraseJudge(self._pack.judge_rules)
        judged: dict[str, list[Judgement]] = {arm.name: [] for arm in arms}
        for judgement in judge_completions(judge, self._prompts, completions):
            judged[judgement.completion.arm].append(judgement)
        return judged
