"""Progress on standard error, with an estimate of the time left; silent when nobody watches.

Standard output belongs to results, so nothing here ever writes to it. A terminal sees a bar; a
notebook sees one that updates in place and goes when the work is done; a pipe or a log file sees
nothing, unless PERSONA_PROBE_PROGRESS=1.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
REDRAW = 0.2  # seconds between two looks of a bar in a notebook
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@runtime_checkable
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
    if not _watched():
        yield _unseen
        return
    bar = _terminal_bar if _kernel() is None else _notebook_bar
    with bar(description, total, unit) as advance:
        yield advance


def _unseen(amount: int | float = 1) -> None:
    pass


@contextmanager
def _terminal_bar(description: str, total: int | float, unit: str) -> Iterator[Advance]:
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
    )
    with bar:
        task = bar.add_task(description, total=total)

        def advance(amount: int | float = 1) -> None:
            bar.advance(task, amount)

        yield advance


@contextmanager
def _notebook_bar(description: str, total: int | float, unit: str) -> Iterator[Advance]:
    """A line of HTML in the cell's output: rich's own bar would need a widget library."""
    from IPython.display import HTML, display

    began, shown, done = time.monotonic(), 0.0, 0.0
    handle = display(HTML(_bar(description, 0, total, unit, 0)), display_id=True)

    def advance(amount: int | float = 1) -> None:
        nonlocal shown, done
        done += amount
        now = time.monotonic()
        if now - shown >= REDRAW and handle is not None:
            shown = now
            handle.update(HTML(_bar(description, done, total, unit, now - began)))

    try:
        yield advance
    finally:
        if handle is not None:
            handle.update(HTML(""))


def _bar(description: str, done: int | float, total: int | float, unit: str, seconds: float) -> str:
    """Description, bar, amounts, rate and time left."""
    rate = done / seconds if seconds > 0 else 0.0
    left = f"{(total - done) / rate:,.0f} s left" if rate else ""
    speed = f"{rate:,.0f} {unit}/s" if unit and rate else ""
    said = " · ".join(part for part in (f"{done:,.0f} of {total:,.0f}", speed, left) if part)
    return (
        f"<div>{escape(description)} "
        f'<progress value="{done}" max="{max(total, 1)}"></progress> {escape(said)}</div>'
    )


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
    return setting == "1" or (setting is None and (sys.stderr.isatty() or _kernel() is not None))


def _kernel() -> object | None:
    """The notebook's kernel, if this process is one."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def note(text: str) -> None:
    """One line of prose on standard error."""
    from rich.console import Console

    # In a notebook rich would make it a result of the cell.
    Console(stderr=True, highlight=False, force_jupyter=False).print(text, markup=False)
