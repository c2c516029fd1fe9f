"""Which words carry the direction? A conversation as coloured text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_probe.report.anchors import href
from persona_probe.report.canvas import canvas, chip, nothing_measured
from persona_probe.report.estimates import number_in, plain
from persona_probe.report.palette import (
    GREY,
    colours_for,
    diverging_scale,
    kind_of,
    label,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
WIDTH = 44  # characters in a line: what fits on a phone
LINE, HEAD = 21, 92  # pixels
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"


def token_projection(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Tokens of one conversation in reading order, each on the colour of its projection.

    Args:
        rows: rows of tokens.jsonl for one arm and prompt: `role` user | assistant, `position`,
            `text` (of the token; a user's turn may be one row), `projection` (class gaps along the
            persona's direction, -0.5 and +0.5 being the class means; `None` is not coloured),
            `persona`, `arm_kind`. Colours are strongest at -1 and +1.
        colours: persona → colour, for the title.
    """
    import plotly.graph_objects as go

    said = [row for row in rows if row.get("text") and row.get("role")]
    values = [v for r in said if (v := number_in(r.get("projection"))) == v]
    colours = colours_for(said, colours)
    persona = next((str(row["persona"]) for row in said if row.get("persona")), "")
    kind = next((str(row["arm_kind"]) for row in said if row.get("arm_kind")), "")
    title = chip(colours[persona], kind_of(kind).words) if persona else kind_of(kind).words
    lines = _lines(said)
    figure = canvas(title, _sizes(values), HEAD + LINE * max(len(lines), 2))
    if not values:
        return nothing_measured(figure)
    pieces = [piece for line in lines for piece in line]
    grid = np.full((len(lines), WIDTH), np.nan)
    for piece in pieces:
        grid[piece["line"], piece["start"] : piece["end"]] = number_in(piece["row"]["projection"])
    known = [[None if value != value else value for value in line] for line in grid.tolist()]
    figure.add_trace(
        go.Heatmap(
            x=[i + 0.5 for i in range(WIDTH)], y=list(range(len(lines))), z=known, zmin=-1, zmax=1,
            colorscale=diverging_scale(), showscale=False, hoverinfo="skip", ygap=3,
            hoverongaps=False,
        )
    )  # fmt: skip
    # One text per line, in a face whose letters are equally wide, would break where fonts differ;
    # tokens stand in the middle of their own place instead.
    figure.add_trace(
        go.Scatter(
            x=[(piece["start"] + piece["end"]) / 2 for piece in pieces],
            y=[piece["line"] for piece in pieces], mode="text",
            text=[_shown(piece) for piece in pieces], textfont={"family": MONO, "size": 11},
            hovertext=[_hover(piece["row"]) for piece in pieces],
            customdata=[href(piece["row"]) for piece in pieces],
            hovertemplate="%{hovertext}<extra></extra>", showlegend=False,
        )
    )  # fmt: skip
    figure.update_xaxes(visible=False, range=[0, WIDTH])
    figure.update_yaxes(visible=False, range=[len(lines) - 0.5, -0.5])
    return figure


def _sizes(values: list[float]) -> str:
    if not values:
        return ""
    mean = sum(values) / len(values)
    ends = f"from {plain(min(values))} to {plain(max(values))}"
    return f"n = {len(values)} tokens, mean {plain(mean)}, {ends} class gaps"


def _lines(rows: Rows) -> list[list[dict[str, Any]]]:
    """Pieces of text with their place; words are broken only where they are longer than a line."""
    lines: list[list[dict[str, Any]]] = [[]]
    at, role = 0, None
    for row in rows:
        words = _words(row)
        if role is not None and row["role"] != role and lines[-1]:
            lines.append([])
            at = 0
        role = row["role"]
        for word in words:
            text = word.lstrip(" ") if at == 0 else word
            if at and at + len(text.rstrip()) > WIDTH:
                lines.append([])
                text, at = word.lstrip(" "), 0
            text = text[: WIDTH - at]
            if text:
                place = {"line": len(lines) - 1, "start": at, "end": at + len(text)}
                lines[-1].append({"row": row, "text": text} | place)
                at += len(text)
    return [line for line in lines if line]


def _words(row: Mapping[str, Any]) -> list[str]:
    """A token as it is; a turn that is one row, word by word."""
    text = " ".join(str(row["text"]).split("\n"))
    if row["role"] == "assistant":
        return [text]
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _shown(piece: Mapping[str, Any]) -> str:
    text = escape_text(str(piece["text"]))
    return f'<span style="color:{GREY}">{text}</span>' if piece["row"]["role"] == "user" else text


def escape_text(text: str) -> str:
    """Model text for a plotly label, in which tags would otherwise count; blanks stay."""
    from html import escape

    return escape(text, quote=False).replace(" ", "\u00a0")


def _hover(row: Mapping[str, Any]) -> str:
    value = number_in(row.get("projection"))
    what = "not projected" if value != value else f"{plain(value)} class gaps"
    return f"{label(row['role'])}: {escape_text(str(row['text']))}<br>{what}"
