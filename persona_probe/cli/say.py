"""What a command says: results on standard output, everything else on standard error."""

import json
import sys
from typing import Any

import typer

from persona_probe.finetuning.launch import is_main


def note(text: str) -> None:
    """One line of prose for people, on standard error."""
    typer.echo(text, err=True)


def result(value: dict[str, Any], as_json: bool, text: str) -> None:
    """The result: one JSON object for machines, or `text` for people, on standard output.

    Of several processes that work together only the first one speaks.
    """
    if not is_main():
        return
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def table(columns: list[str], rows: list[list[str]], title: str | None = None) -> str:
    """A plain table for people; columns of numbers are aligned to the right, text to the left."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(row[index][:1] in "0123456789+-." for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    # A pipe has no width; wide enough there that no row is folded.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
