"""A conversation that goes on twice: with the model as it is, and with the steered one."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Message
from persona_probe.models.residual_model import ResidualModel
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.stream import Piece, stream

SIDES = ("unsteered", "steered")


@dataclass(frozen=True)
class Manner:
    """How both sides of a dialogue speak.

    Attributes:
        system: system line; empty for none.
        adapter: LoRA adapter that is on.
        schedule: positions that are steered; where the direction was read, if not given.
        max_new_tokens: room for a reply.
        temperature: 0 takes the likeliest token.
        seed: of samples.
    """

    system: str = ""
    adapter: str | None = None
    schedule: str | None = None
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0


@dataclass
class Dialogue:
    """Both sides hear the same words of the user, and each remembers its own replies.

    Attributes:
        model: the model.
        direction: what is added on the steered side.
        strength: how much, in units of the median residual norm; `steer_with` changes it.
        manner: everything else.
    """

    model: ResidualModel
    direction: Direction
    strength: float
    manner: Manner = field(default_factory=Manner)

    def __post_init__(self) -> None:
        self.steer_with(self.strength)
        self.direction.check_fits(self.model)
        self.reset()

    def steer_with(self, strength: float) -> None:
        """Steer the next replies with another strength.

        Raises:
            RequestError: it is not a finite number.
        """
        added = Intervention(self.direction, Add(strength), self.manner.schedule)
        self.strength = strength
        adapter = self.manner.adapter
        self._arms = (Arm(SIDES[0], adapter=adapter), Arm(SIDES[1], (added,), adapter))

    def reset(self) -> None:
        """Forget everything that was said."""
        start = (Message("system", self.manner.system),) if self.manner.system else ()
        self._histories: list[tuple[Message, ...]] = [start, start]
        self._turns = 0

    def history(self, side: int) -> tuple[Message, ...]:
        """What one side remembers: 0 the unsteered one, 1 the steered one."""
        return self._histories[side]

    def say(self, text: str) -> Iterator[Piece]:
        """Let both sides reply; a piece's row is its side.

        The turn is remembered when the last piece has been taken. A dialogue that is interrupted
        before goes on as if the words had not been said.

        Raises:
            RequestError: there are no words, or the conversation has become too long.
        """
        if not text.strip():
            raise RequestError("say something; a line without words has no reply")
        asked = [(*history, Message("user", text)) for history in self._histories]
        turns = [
            (Conversation(messages, id=side), arm)
            for messages, side, arm in zip(asked, SIDES, self._arms, strict=True)
        ]
        ids: list[list[int]] = [[], []]
        manner = self.manner
        for piece in stream(
            self.model,
            turns,
            self.direction,
            manner.max_new_tokens,
            manner.temperature,
            manner.seed + self._turns,
        ):
            ids[piece.row].append(piece.token_id)
            yield piece
        decode = self.model.tokenizer.decode
        self._histories = [
            (*messages, Message("assistant", decode(said, skip_special_tokens=True)))
            for messages, said in zip(asked, ids, strict=True)
        ]
        self._turns += 1
