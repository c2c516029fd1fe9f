"""Which token positions an activation stands for.

A position is a function from a conversation's tokens to the span whose residuals are averaged.
A new one is one function and one line in `POSITIONS`.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens

Position = Callable[[Tokens], slice]


def last_prompt_token(tokens: Tokens) -> slice:
    """The last token before the reply: where the reply is decided, and generation begins."""
    return slice(max(tokens.prompt_length - 1, 0), tokens.prompt_length)


def prompt_mean(tokens: Tokens) -> slice:
    """Everything before the reply, the template's own tokens included."""
    return slice(0, tokens.prompt_length)


def response_mean(tokens: Tokens) -> slice:
    """The reply, without the mark that ends it (persona vectors, arXiv:2507.21509)."""
    return tokens.response or slice(0, 0)


POSITIONS: dict[str, Position] = {
    "last_prompt_token": last_prompt_token,
    "response_mean": response_mean,
    "prompt_mean": prompt_mean,
}


def position_named(name: str) -> Position:
    """A position by its name in `POSITIONS`.

    Raises:
        RequestError: there is none of this name; the message lists the choices.
    """
    if name not in POSITIONS:
        raise RequestError(f"unknown position {name!r}; choose from {', '.join(POSITIONS)}")
    return POSITIONS[name]


def span_of(tokens: Tokens, position: str, who: str) -> slice:
    """The span of a position in one conversation, called `who` in messages.

    Raises:
        RequestError: there is nothing at this position, for instance no reply.
    """
    span = position_named(position)(tokens)
    if span.stop <= span.start:
        raise RequestError(
            f"conversation {who} has no tokens at position {position!r}; "
            "give it a reply or choose another position"
        )
    return span


def span_weights(
    spans: Sequence[Sequence[slice]], width: int
) -> Float[Tensor, "example position pos"]:
    """Averaging as a matrix: 1/n on the n tokens of each span, 0 elsewhere.

    Args:
        spans: per example, one span per position.
        width: length of the padded batch in tokens.
    """
    weights = torch.zeros(len(spans), len(spans[0]), width)
    for row, row_spans in enumerate(spans):
        for column, span in enumerate(row_spans):
            weights[row, column, span] = 1 / (span.stop - span.start)
    return weights


def pool(
    resid: Float[Tensor, "example pos d_model"],
    weights: Float[Tensor, "example position pos"],
) -> Float[Tensor, "example position d_model"]:
    """Weighted sums over tokens in float32: in bfloat16 they lose the direction being sought."""
    return torch.bmm(weights, resid.float())
