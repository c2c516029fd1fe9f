"""What a dialogue looks like: two replies side by side, tokens in the colour of their projection.

Between the class means of the direction lies one class gap. The colours run from blue (the negative
class) to orange (the positive one), which people who confuse red and green can tell apart; all have
a contrast of 3 or more to black and to white, and tokens in the middle keep the terminal's own
colour.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import typer

from persona_probe.report.palette import PROJECTION_STEPS
from persona_probe.steering.dialogue import SIDES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from persona_probe.steering.scale import Scale
    from persona_probe.steering.stream import Piece

# Rich styles of the shared scale, its ends bold.
STYLES = tuple(
    (least, "" if colour is None else f"bold {colour}" if not -0.5 <= least < 0.5 else colour)
    for least, colour in PROJECTION_STEPS
)
NARROW = 80  # columns; below, the replies stand one above the other


def style_of(value: float) -> str:
    """The style of a token that lies so many class gaps from the middle."""
    return [style for least, style in STYLES if value >= least or math.isinf(least)][-1]


def legend(scale: "Scale") -> "Text":
    """What the colours mean, in one line."""
    from rich.text import Text

    bounds = [f"{least:g}" for least, _ in STYLES[1:]]
    ranges = [f"< {bounds[0]}", *(f"{a} to {b}" for a, b in pairwise(bounds)), f"> {bounds[-1]}"]
    line = Text("")  # The style of a first piece would be everyone's.
    line.append(f"projection in class gaps: {scale.negative} ", style="dim")
    for (_, style), words in zip(STYLES, ranges, strict=True):
        line.append(f" {words} ", style=style)
    line.append(f" {scale.positive}", style="dim")
    return line


@dataclass
class Replies:
    """Both replies as far as they have come."""

    scale: "Scale"
    tokens: tuple[list[tuple[str, float]], list[tuple[str, float]]]

    @classmethod
    def none(cls, scale: "Scale") -> "Replies":
        return cls(scale, ([], []))

    def add(self, piece: "Piece") -> None:
        self.tokens[piece.row].append((piece.text, self.scale.value(piece.projection)))

    def text(self, side: int) -> str:
        return "".join(text for text, _ in self.tokens[side])

    def mean(self, side: int) -> float:
        """Mean projection in class gaps; NaN of no tokens."""
        values = [value for _, value in self.tokens[side]]
        return sum(values) / len(values) if values else math.nan

    def coloured(self, side: int) -> "Text":
        from rich.text import Text

        text = Text()
        for said, value in self.tokens[side]:
            text.append(said, style=style_of(value))
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            side: {
                "text": self.text(number).strip(),
                "mean_projection": _or_null(self.mean(number)),
                "tokens": [[text, round(value, 4)] for text, value in self.tokens[number]],
            }
            for number, side in enumerate(SIDES)
        }


def show(pieces: Iterable["Piece"], scale: "Scale", strength: float, console: "Console") -> Replies:
    """Show replies while they are made; a pipe gets them when they are complete."""
    replies = Replies.none(scale)
    if not console.is_terminal:
        for piece in pieces:
            replies.add(piece)
        typer.echo(plain(replies))
        return replies
    from rich.live import Live

    with Live(console=console, refresh_per_second=12) as live:
        for piece in pieces:
            replies.add(piece)
            live.update(side_by_side(replies, strength, console.width))
        live.update(side_by_side(replies, strength, console.width))
    return replies


def side_by_side(replies: Replies, strength: float, width: int) -> "Table":
    """A column per side, or one above the other where there is no room."""
    from rich.table import Table

    heads = [
        f"[bold]{name}[/] [dim]{_signed(replies.mean(side))}[/]"
        for side, name in enumerate((SIDES[0], f"{SIDES[1]} {strength:g}"))
    ]
    grid = Table.grid(padding=(0, 3), expand=True)
    if width < NARROW:
        grid.add_column()
        for side, head in enumerate(heads):
            grid.add_row(head)
            grid.add_row(replies.coloured(side))
        return grid
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*heads)
    grid.add_row(replies.coloured(0), replies.coloured(1))
    return grid


def plain(replies: Replies) -> str:
    """For pipes and files: no colours, no columns, one line per side."""
    lines = []
    for side, name in enumerate(SIDES):
        said = replies.text(side).strip()
        lines.append(f"{name + ':':<11}{said}  [{_signed(replies.mean(side))}]")
    return "\n".join(lines)


def _signed(value: float) -> str:
    return "no tokens" if math.isnan(value) else f"{value:+.2f} gaps"


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
