"""Progress on standard error, with an estimate of the time left; silent when nobody watches.

Standard output belongs to results, so nothing here ever writes to it. A terminal sees a bar; a
notebook sees rich's own; a pipe or a log file sees nothing, unless PERSONA_PROBE_PROGRESS=1.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

Item = TypeVar("Item")
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


class Advance(Protocol):
    """Called with the amount of work done since the last call."""

    def __call__(self, amount: int | float = 1) -> None: ...


@contextmanager
def progress(description: str, total: int | float, unit: str = "") -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        description: what is going on, a few words.
        total: the amount of work, in `unit`.
        unit: shown with the rate, for instance "tokens".
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How fast it goes, in units per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if unit and task.speed else "")

    bar = Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not _watched(),
    )
    with bar:
        task = bar.add_task(description, total=total)

        def advance(amount: int | float = 1) -> None:
            bar.advance(task, amount)

        yield advance


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Iterate with a bar."""
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def silent() -> Iterator[None]:
    """No bars inside the block, for work that is done many times a minute."""
    before = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(before)


def _watched() -> bool:
    if _SILENT.get():
        return False
    setting = os.environ.get("PERSONA_PROBE_PROGRESS")
    return setting == "1" or (
        setting is None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    )


def note(text: str) -> None:
    """One line of prose on standard error."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, markup=False)
