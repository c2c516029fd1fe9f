"""What a command says: results on standard output, everything else on standard error."""

import json
from typing import Any

import typer


def note(text: str) -> None:
    """One line of prose for people, on standard error."""
    typer.echo(text, err=True)


def result(value: dict[str, Any], as_json: bool, text: str) -> None:
    """The result: one JSON object for machines, or `text` for people, on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def table(columns: list[str], rows: list[list[str]], title: str | None = None) -> str:
    """A plain table for people; the first column is left-aligned, the others right-aligned."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console = Console()
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip()
