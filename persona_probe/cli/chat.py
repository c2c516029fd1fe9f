"""`persona-probe chat`: talk to a model and to its steered self at once."""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from persona_probe.cli.options import (
    Adapter,
    Device,
    Directions,
    Dtype,
    Layer,
    Model,
    NewTokens,
    Schedule,
    Seed,
    System,
    Temperature,
    model_name,
)
from persona_probe.cli.say import note
from persona_probe.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from persona_probe.steering.dialogue import Dialogue
    from persona_probe.steering.scale import Scale

COMMANDS = "/strength X changes the strength, /reset forgets what was said, /quit ends"


def chat(
    model: Model,
    directions: Directions,
    persona: Annotated[str, typer.Option(help="Whose direction.")],
    layer: Layer,
    strength: Annotated[
        float, typer.Option(help="In units of the median residual norm; negative steers away.")
    ] = 0.4,
    schedule: Schedule = None,
    system: System = "",
    adapter: Adapter = None,
    max_new_tokens: NewTokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per reply, a line each.")
    ] = False,
) -> None:
    """Chat with the unsteered and the steered model, side by side, each with its own memory.

    Tokens are coloured by their projection on the direction. Input may be piped, a line per turn.
    Commands: /strength X, /reset, /quit.

    Example: persona-probe chat organism --directions artifacts/demo/directions \
--persona virtue --layer 2 --strength 0.4 --adapter helpful-only
    """
    from rich.console import Console

    from persona_probe.cli.chat_screen import legend
    from persona_probe.directions.direction_set import direction_at, load_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.steering.dialogue import Dialogue, Manner
    from persona_probe.steering.scale import Scale

    chosen = direction_at(load_directions(directions), persona, layer)
    manner = Manner(system, adapter, schedule, max_new_tokens, temperature, seed)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    dialogue = Dialogue(loaded, chosen, strength, manner)
    scale, console = Scale.of(chosen), Console(highlight=False)
    if not as_json and console.is_terminal:
        note(f"{loaded.label}, {chosen.name}. {COMMANDS}.")
        console.print(legend(scale))
    for line in _lines():
        if line.strip() == "/quit":
            return
        try:
            _turn(dialogue, line, scale, console, as_json)
        except RequestError as error:
            if not sys.stdin.isatty():  # A script should not go on as if it had been heard.
                raise
            note(f"error: {error}")


def _turn(
    dialogue: "Dialogue", line: str, scale: "Scale", console: "Console", as_json: bool
) -> None:
    """Do what one line of input asks for."""
    from persona_probe.cli.chat_screen import Replies, show

    words = line.split()
    if not words:
        return
    if words[0].startswith("/"):
        _command(dialogue, words)
        return
    pieces = dialogue.say(line)
    if not as_json:
        with suppress(KeyboardInterrupt):  # stops this reply, which is then forgotten
            show(pieces, scale, dialogue.strength, console)
        return
    replies = Replies.none(scale)
    for piece in pieces:
        replies.add(piece)
    value = {"user": line, "strength": dialogue.strength, **replies.to_json()}
    typer.echo(json.dumps(value, ensure_ascii=False))


def _command(dialogue: "Dialogue", words: list[str]) -> None:
    """/strength X or /reset.

    Raises:
        RequestError: it is none of them; the message lists them.
    """
    if words == ["/reset"]:
        dialogue.reset()
        note("both sides have forgotten what was said")
        return
    if words[0] == "/strength" and len(words) == 2:
        try:
            amount = float(words[1])
        except ValueError:
            raise RequestError(f"/strength {words[1]!r}: write a number, /strength 0.5") from None
        dialogue.steer_with(amount)
        note(f"strength {amount:g}")
        return
    raise RequestError(f"no command {' '.join(words)!r}; {COMMANDS}")


def _lines() -> Iterator[str]:
    """What is typed or piped, line by line, until it ends."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  gives input() a history and an editable line
    with suppress(EOFError):
        while True:
            yield input("\nyou> ")
