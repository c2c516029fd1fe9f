"""How the nouns look in a notebook: one small table, escaped, on light and dark pages alike.

Nothing here has a colour of its own: text is that of the page, and lines are half transparent, so
that a table reads equally well in Jupyter, in an editor, and on a page that strips styles.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

TABLE = "border-collapse:collapse;color:inherit;background:transparent;text-align:left"
CAPTION = "caption-side:top;text-align:left;color:inherit;padding:.15em .6em;font-weight:600"
CELL = (
    "text-align:left;vertical-align:top;padding:.15em .6em;color:inherit;background:transparent;"
    "border-bottom:1px solid rgba(128,128,128,.5)"
)
MOST_ROWS = 60


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """A table without scripts, classes or anything from elsewhere.

    Args:
        heads: of the columns.
        rows: cells of any type; long tables show their first rows and say how many are left.
        caption: what it is, and of how many.
    """
    shown, left = rows[:MOST_ROWS], len(rows) - MOST_ROWS
    title = f'<caption style="{CAPTION}">{escape(caption)}</caption>' if caption else ""
    head = "".join(f'<th style="{CELL}">{escape(name)}</th>' for name in heads)
    lines = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in shown)
    if left > 0:
        lines += f'<tr><td style="{CELL}" colspan="{len(heads)}">… {left} more</td></tr>'
    body = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return f'<table style="{TABLE}">{title}{body}</table>'


def facts(what: str, told: Mapping[str, Any]) -> str:
    """One fact per line; a fact that is `None` is a dash."""
    return table([what, ""], [[name, "–" if fact is None else fact] for name, fact in told.items()])


def number(value: float) -> str:
    """Four digits, or a dash where there is none."""
    return f"{value:.4g}" if value == value else "–"


def _cell(value: Any) -> str:
    text = number(value) if isinstance(value, float) else str(value)
    return f'<td style="{CELL}">{escape(text)}</td>'
