"""The README's list of commands, made from the commands themselves.

`python -m tests.command_table` prints it; a test compares it with what the README says.
"""

import sys
from collections.abc import Iterator
from typing import Any

WIDTH = 32


def command_table() -> str:
    """One line per command: its arguments, and the first sentence of its help; options aside."""
    from typer.main import get_command

    from persona_probe.cli.app import app

    return "\n".join(_lines(get_command(app), "persona-probe"))


def _lines(command: Any, called: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _lines(inner, f"{called} {name}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [called.removeprefix("persona-probe ")]
    words += [a.metavar or a.name.upper() for a in arguments]
    first = command.help.strip().split("\n\n")[0].replace("\n", " ")
    sentence = first.split(". ")[0].rstrip(".")
    yield f"{' '.join(words):<{WIDTH}} {sentence}"


if __name__ == "__main__":
    sys.stdout.write(command_table() + "\n")
