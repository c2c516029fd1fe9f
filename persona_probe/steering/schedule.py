"""Which token positions an intervention acts on, and how much of its strength each gets.

A schedule names positions of the residual stream in the whole sequence, prompt and reply, counted
without padding. It means the same at prefill, in a decoding step with a key-value cache, under
padding on either side, in a packed row, and when a given reply is scored:

    prompt             every token of the prompt, the last one included
    last_prompt_token  the last token of the prompt: the position whose output is the first
                       generated token
    response           the generated tokens' own positions, from the first one on. The first
                       generated token itself is predicted from the prompt and hence unchanged
    both               all of them

A shape narrows the response, or weakens what is done to it from token to token. Its tokens are
counted from 0, the first generated one:

    first:K            the first K tokens
    from:K             all but the first K tokens
    linear:K           weight 1 - t/K for token t, nothing from token K on
    exponential:H      weight 2^(-t/H): half the strength after H tokens

"prompt/first:3" and "both/linear:20" count from the first token of the prompt instead. A weight
multiplies the strength of an operation; operations without one (ablate, clamp, patch, subspace)
cannot be weakened, and `Intervention` refuses the pair: a part of an ablation is another
operation, not a weaker one.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.errors import RequestError

Positions = Int[Tensor, "row pos"]
Lengths = Int[Tensor, "row 1"]
Numbers = Float[Tensor, "row pos"]

# Arguments: position in the sequence, -1 for padding; number of prompt tokens.
SCHEDULES: dict[str, Callable[[Positions, Lengths], Bool[Tensor, "row pos"]]] = {
    "prompt": lambda position, length: (position >= 0) & (position < length),
    "last_prompt_token": lambda position, length: (position >= 0) & (position == length - 1),
    "response": lambda position, length: (position >= 0) & (position >= length),
    "both": lambda position, length: (position >= 0) & (length >= 0),
}

# Arguments: number of the token, the setting behind the colon. Weight 0 leaves the token alone.
SHAPES: dict[str, Callable[[Numbers, float], Numbers]] = {
    "first": lambda t, k: (t < k).float(),
    "from": lambda t, k: (t >= k).float(),
    "linear": lambda t, k: (1 - t / k).clamp_min(0.0),
    "exponential": lambda t, half_life: torch.exp2(-t / half_life),
}
FADING = frozenset({"linear", "exponential"})
SYNTAX = (
    f"choose one of {', '.join(SCHEDULES)}, first:K, from:K, linear:K, exponential:H, "
    "or a shape of a span such as both/first:K"
)

# Schedules that leave everything before the last prompt token as it is.
SPARE_THE_PROMPT = frozenset({"last_prompt_token", "response"})

WHERE_READ = {
    "prompt_mean": "prompt",
    "last_prompt_token": "last_prompt_token",
    "response_mean": "response",
}


@dataclass(frozen=True)
class Schedule:
    """A schedule, made by `schedule_named`.

    Attributes:
        span: a name in `SCHEDULES`: the positions that it acts on at most.
        shape: a name in `SHAPES`, or `None` for all of the span at full strength.
        setting: K or H of the shape.
    """

    span: str
    shape: str | None = None
    setting: float = math.nan

    @property
    def fades(self) -> bool:
        """Whether some weights lie between 0 and 1."""
        return self.shape in FADING

    @property
    def spares_the_prompt(self) -> bool:
        """Whether nothing before the last prompt token changes."""
        return self.span in SPARE_THE_PROMPT

    def __call__(self, position: Positions, length: Lengths) -> Numbers:
        """Weight of each position, 0 where nothing is done.

        Args:
            position: of each token in its sequence, -1 for padding.
            length: number of prompt tokens of each row.
        """
        inside = SCHEDULES[self.span](position, length)
        if self.shape is None:
            return inside.float()
        number = (position - length if self.span == "response" else position).float()
        return torch.where(inside, SHAPES[self.shape](number, self.setting), 0.0)


def matching_schedule(position: str) -> str:
    """The schedule that acts where a direction was read.

    A direction read at the last prompt token is as long as the residual there; added at every
    reply token it destroys the text. So it acts where it was read unless one says otherwise.

    Raises:
        RequestError: the reading rule has no schedule of its own.
    """
    try:
        return WHERE_READ[position]
    except KeyError:
        raise RequestError(
            f"a direction read at {position!r} has no matching schedule; "
            f"choose one of {', '.join(SCHEDULES)}"
        ) from None


@lru_cache(maxsize=1024)
def schedule_named(name: str) -> Schedule:
    """Read a schedule as it is written: a span, a shape of the response, or SPAN/SHAPE.

    Raises:
        RequestError: there is none of this name, or its setting makes no sense.
    """
    if name in SCHEDULES:
        return Schedule(name)
    match = re.fullmatch(r"(?:(\w+)/)?(\w+):(.*)", name)
    if match is None or match[2] not in SHAPES or (match[1] or "response") not in SCHEDULES:
        raise RequestError(f"no schedule {name!r}; {SYNTAX}")
    if match[1] == "last_prompt_token":
        raise RequestError(
            f"schedule {name!r}: the last prompt token is one token and has no shape"
        )
    return Schedule(match[1] or "response", match[2], _setting(name, match[2], match[3]))


def _setting(name: str, shape: str, text: str) -> float:
    if shape != "exponential":
        if not text.isdecimal() or int(text) == 0:
            raise RequestError(f"schedule {name!r}: K is a number of tokens, 1 or more")
        return float(text)
    try:
        half_life = float(text)
    except ValueError:
        half_life = math.nan
    if not 0 < half_life < math.inf:
        raise RequestError(f"schedule {name!r}: the half-life H is a positive number of tokens")
    return half_life
