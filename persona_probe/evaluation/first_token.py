"""The token that a reply begins with, tokenised where it stands."""

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel


def first_token(model: ResidualModel, asked: Conversation, reply: str) -> int:
    """The first token of a reply to a conversation, in one tokenisation of both.

    Raises:
        RequestError: the reply has no tokens of its own.
    """
    tokens = model.encode(asked.with_reply(reply), add_generation_prompt=False)
    if tokens.response is None or tokens.response.start >= tokens.response.stop:
        raise RequestError(f"the beginning of a reply {reply!r} has no tokens; remove it")
    start: int = tokens.response.start
    return tokens.ids[start]
