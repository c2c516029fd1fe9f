"""The strength with a given effect: searched for in batches of strengths, nothing assumed of it.

What a strength costs need not grow with it, so no search here relies on that. Strengths are tried
from below on a grid that is refined where the first crossing shows; all strengths of one round
share a batch. A rise and fall between two neighbours of the grid goes unseen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, json_number, mean_interval
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.condition import Condition
from persona_probe.steering.operation import Operation
from persona_probe.steering.scoring import BATCH_TOKENS, reply_divergences

Measure = Literal["per_token", "first_token"]
PER_ROUND = 8  # strengths that share a batch
ROUNDS = 7
NEXT_TO_NOTHING = 1 / 256  # of the highest strength; where this fails, no strength passes


@dataclass(frozen=True)
class Calibration:
    """The smallest strength that was found to have the KL asked for.

    Attributes:
        strength: in the units of the operation; negative where `sign` is.
        kl: KL(unsteered ‖ steered) there, nats: mean over replies, the interval over families.
        target: what was asked for, nats.
        tolerance: how far `kl` may be off, as a share of the target.
        measure: "per_token" or "first_token".
        tried: every strength that was tried and its KL, in order of size.
        monotone: whether KL grew with size throughout what was tried. Where it did not, larger
            strengths may have the same KL.
    """

    strength: float
    kl: Estimate
    target: float
    tolerance: float
    measure: Measure
    tried: tuple[tuple[float, float], ...]
    monotone: bool

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "kl": self.kl.to_json(),
            "tried": [[strength, json_number(kl)] for strength, kl in self.tried],
        }


def calibrate(
    model: ResidualModel,
    direction: Direction,
    replies: Sequence[Conversation],
    target_kl: float = 0.1,
    *,
    operation: Callable[[float], Operation] = Add,
    schedule: str | None = None,
    sites: tuple[Site, ...] | None = None,
    condition: Condition | None = None,
    adapter: str | None = None,
    measure: Measure = "per_token",
    sign: int = 1,
    tolerance: float = 0.02,
    highest: float = 4.0,
    batch_tokens: int = BATCH_TOKENS,
) -> Calibration:
    """Find the smallest strength whose KL to the unsteered model is `target_kl`.

    Args:
        model: left as it was found.
        direction: what is steered along.
        replies: neutral text: requests that end with the unsteered model's own replies.
        target_kl: nats.
        operation: strength → operation.
        schedule: positions acted at; where the direction was read, if not given.
        sites: sites acted at; the direction's own, if not given.
        condition: when; always, if not given.
        adapter: LoRA adapter that is on, in both models.
        measure: KL per token of the replies, or at their first token only.
        sign: 1 searches along the direction, -1 against it.
        tolerance: as a share of the target.
        highest: largest size of a strength that is tried, in the units of the operation.
        batch_tokens: upper bound on the tokens of a batch.

    Raises:
        RequestError: an argument makes no sense, or there are no replies.
        PersonaProbeError: no strength up to `highest` has this KL; the message says what was seen.
        SiteMismatchError: the direction does not fit the model.
    """
    _require_sensible(target_kl, tolerance, highest, measure, sign, replies)
    reference = Arm("unsteered", adapter=adapter)

    def cost(strengths: Sequence[float]) -> list[float]:
        arms = [
            Arm(
                f"{strength!r}",
                (Intervention(direction, operation(sign * strength), schedule, sites, condition),),
                adapter,
            )
            for strength in strengths
        ]
        found = reply_divergences(
            model, replies, arms, reference, batch_tokens, description="Calibrating"
        )
        for strength, kl in zip(strengths, _chosen(found, measure), strict=True):
            per_reply[strength] = kl.tolist()
        return [math.fsum(per_reply[s]) / len(replies) for s in strengths]

    per_reply: dict[float, list[float]] = {}
    size, tried = smallest_crossing(cost, target_kl, tolerance, highest, direction.name)
    clusters = [c.family or c.id or str(number) for number, c in enumerate(replies)]
    costs = [kl for _, kl in tried]
    return Calibration(
        sign * size,
        mean_interval(per_reply[size], clusters),
        target_kl,
        tolerance,
        measure,
        tuple((sign * strength, kl) for strength, kl in tried),
        all(later >= earlier for earlier, later in pairwise(costs)),
    )


def smallest_crossing(
    cost: Callable[[Sequence[float]], Sequence[float]],
    target: float,
    tolerance: float,
    highest: float,
    name: str,
) -> tuple[float, list[tuple[float, float]]]:
    """The smallest strength in (0, highest] whose cost was found to be within the tolerance.

    Args:
        cost: of several strengths at once; it is 0 at strength 0, and NaN counts as too much.
        target: what it should be, above 0.
        tolerance: as a share of the target.
        highest: largest strength to try.
        name: what is calibrated, for messages.

    Returns:
        The strength, and all that were tried with their costs, in order.

    Raises:
        PersonaProbeError: there is none.
    """
    least, most = target * (1 - tolerance), target * (1 + tolerance)
    tried: dict[float, float] = {}
    grid = [highest * 2.0**-k for k in reversed(range(PER_ROUND))]
    low, high = 0.0, math.nan
    for _ in range(ROUNDS):
        tried |= zip(grid, cost(grid), strict=True)
        enough = [s for s in sorted(tried) if not tried[s] < least]
        if not enough:
            strongest = max(tried, key=lambda s: tried[s])
            raise PersonaProbeError(
                f"{name} reaches a KL of {target:g} at no strength up to {highest:g}: the largest "
                f"was {tried[strongest]:.3g} nats, at strength {strongest:.3g}; raise the highest "
                "strength or steer at another site"
            )
        high = enough[0]
        if tried[high] <= most:
            return high, sorted(tried.items())
        low = max((s for s in tried if s < high), default=0.0)
        grid = _between(low, high)
    raise PersonaProbeError(
        f"the KL of {name} jumps from {tried.get(low, 0.0):.4g} to {tried[high]:.4g} nats between "
        f"strengths {low:.6g} and {high:.6g}, past {target:g}; allow a larger tolerance or load "
        "the model in float32"
    )


@dataclass(frozen=True)
class Widest:
    """The largest strength up to which everything that was tried passed.

    Attributes:
        strength: 0 when not even a 256th of the highest passed.
        fails_at: the smallest that failed; `None` when everything up to the highest passed.
        tried: every strength that was tried and whether it passed, in order of size.
    """

    strength: float
    fails_at: float | None
    tried: tuple[tuple[float, bool], ...]


def largest_passing(
    passes: Callable[[Sequence[float]], Sequence[bool]], highest: float, precision: float = 0.05
) -> Widest:
    """Search for the largest strength that passes, with every smaller one that is tried.

    Args:
        passes: of several strengths at once.
        highest: largest strength to try.
        precision: stop when the gap to the smallest failure is this share of it.

    Raises:
        RequestError: an argument makes no sense.
    """
    if not (math.isfinite(highest) and highest > 0 and 0 < precision < 1):
        raise RequestError(
            "the highest strength must be positive and finite and the precision between 0 and 1, "
            f"got {highest} and {precision}"
        )
    tried: dict[float, bool] = {}
    grid = [highest * (k + 1) / PER_ROUND for k in range(PER_ROUND)]
    low, high = 0.0, math.inf
    for _ in range(ROUNDS):
        tried |= zip(grid, passes(grid), strict=True)
        high = min((s for s, passed in tried.items() if not passed), default=math.inf)
        low = max((s for s in tried if s < high), default=0.0)
        if math.isinf(high) or high - low <= precision * high or high <= highest * NEXT_TO_NOTHING:
            break
        grid = _between(low, high)
    fails_at = None if math.isinf(high) else high
    return Widest(low, fails_at, tuple(sorted(tried.items())))


def _between(low: float, high: float) -> list[float]:
    step = (high - low) / (PER_ROUND + 1)
    return [low + step * (k + 1) for k in range(PER_ROUND)]


def _chosen(found: Any, measure: Measure) -> Any:
    return found.per_token if measure == "per_token" else found.first_token


def _require_sensible(
    target: float,
    tolerance: float,
    highest: float,
    measure: str,
    sign: int,
    replies: Sequence[Conversation],
) -> None:
    for what, value in (("target KL", target), ("highest strength", highest)):
        if not (math.isfinite(value) and value > 0):
            raise RequestError(f"the {what} must be positive and finite, got {value}")
    if not 0 < tolerance < 1:
        raise RequestError(f"the tolerance must be between 0 and 1, got {tolerance}")
    if measure not in get_args(Measure):
        raise RequestError(f"measure must be one of {get_args(Measure)}, got {measure!r}")
    if sign not in (1, -1):
        raise RequestError(f"sign must be 1 or -1, got {sign}")
    if not replies:
        raise RequestError("no neutral replies to calibrate on; give at least one")
