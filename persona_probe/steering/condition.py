"""Whether a row is steered at all, decided on its prompt."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, direction_at
from persona_probe.errors import RequestError
from persona_probe.models.site import Site

ReadAt = Literal["last_prompt_token", "prompt_mean"]
ThresholdUnits = Literal["gap", "raw"]

FORM = re.compile(
    r"(?P<persona>.+?):(?P<layer>\d+):(?P<threshold>[+-]?(?:inf|\d+\.?\d*|\.\d+))"
    r"(?::(?P<at>last_prompt_token|prompt_mean))?(?::(?P<units>gap|raw))?"
)


@dataclass(frozen=True, eq=False)
class Condition:
    """An intervention's switch: on for a row whose prompt projects beyond a threshold.

    The prompt is read once, at the direction's site, and the decision holds for the whole row:
    all its positions, all the tokens that are generated later. What is read is the residual as the
    row's earlier interventions have left it. An intervention that acts below the site cannot wait
    for it, and `Intervention` refuses it. Conditional activation steering: Lee et al. 2024,
    arXiv:2409.05907. A projection within rounding of the threshold may fall on either side of it.

    Attributes:
        direction: what is projected on; negate it to switch on below a threshold.
        threshold: the switch is on above it; -inf is always on, inf never.
        at: what is read, the last token of the prompt or the mean of its tokens.
        units: "gap": class gaps, so that 0 lies half-way between the classes of the direction.
            "raw": h·v in residual units.
    """

    direction: Direction
    threshold: float = 0.0
    at: ReadAt = "last_prompt_token"
    units: ThresholdUnits = "gap"

    def __post_init__(self) -> None:
        if math.isnan(self.threshold):
            raise RequestError("the threshold of a condition must be a number, got nan")
        if self.at not in get_args(ReadAt):
            raise RequestError(f"a condition is read at one of {get_args(ReadAt)}, got {self.at!r}")
        if self.units not in get_args(ThresholdUnits):
            raise RequestError(
                f"units must be one of {get_args(ThresholdUnits)}, got {self.units!r}"
            )
        if self.units == "gap" and math.isnan(self.direction.midpoint):
            raise RequestError(
                f"the {self.direction.name} has no midpoint, so a threshold in class gaps has no "
                "meaning; give the threshold in raw units"
            )

    @property
    def site(self) -> Site:
        """Where the prompt is read."""
        return self.direction.site

    @property
    def limit(self) -> float:
        """The threshold in residual units."""
        if self.units == "raw":
            return self.threshold
        return self.direction.midpoint + self.threshold * self.direction.gap


def condition_named(text: str, directions: DirectionSet) -> Condition:
    """Read a condition as it is written: PERSONA:LAYER:THRESHOLD[:AT][:UNITS].

    Args:
        text: "virtue:4:0.5" or "virtue:4:-0.2:prompt_mean:raw".
        directions: persona → site → direction.

    Raises:
        RequestError: it has another form, or there is no such direction.
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise RequestError(
            f"cannot read the condition {text!r}; write PERSONA:LAYER:THRESHOLD, a number, then "
            ":last_prompt_token or :prompt_mean and :gap or :raw if you like"
        )
    direction = direction_at(directions, match["persona"], int(match["layer"]))
    at: Any = match["at"] or "last_prompt_token"
    units: Any = match["units"] or "gap"
    return Condition(direction, float(match["threshold"]), at, units)
