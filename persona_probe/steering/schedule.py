"""Which token positions an intervention acts on.

A schedule names positions of the residual stream in the whole sequence, prompt and reply, counted
without padding. It means the same at prefill, in a decoding step with a key-value cache, under
padding on either side, and when a given reply is scored:

    prompt             every token of the prompt, the last one included
    last_prompt_token  the last token of the prompt: the position whose output is the first
                       generated token
    response           the generated tokens' own positions, from the first one on. The first
                       generated token itself is predicted from the prompt and hence unchanged
    both               all of them
"""

from collections.abc import Callable

from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.errors import RequestError

Positions = Int[Tensor, "row pos"]
Lengths = Int[Tensor, "row 1"]
Schedule = Callable[[Positions, Lengths], Bool[Tensor, "row pos"]]

# Arguments: position in the sequence, -1 for padding; number of prompt tokens.
SCHEDULES: dict[str, Schedule] = {
    "prompt": lambda position, length: (position >= 0) & (position < length),
    "last_prompt_token": lambda position, length: (position >= 0) & (position == length - 1),
    "response": lambda position, length: (position >= 0) & (position >= length),
    "both": lambda position, length: (position >= 0) & (length >= 0),
}

# Schedules that leave everything before the last prompt token as it is.
SPARE_THE_PROMPT = frozenset({"last_prompt_token", "response"})

WHERE_READ = {
    "prompt_mean": "prompt",
    "last_prompt_token": "last_prompt_token",
    "response_mean": "response",
}


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


def schedule_named(name: str) -> Schedule:
    """Look a schedule up.

    Raises:
        RequestError: there is none of this name.
    """
    try:
        return SCHEDULES[name]
    except KeyError:
        raise RequestError(f"no schedule {name!r}; choose one of {', '.join(SCHEDULES)}") from None
