"""A matrix of numbers as coloured cells, shared by the figures that show one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from persona_probe.report.estimates import in_words, plain
from persona_probe.report.palette import STRONGEST_TINT, diverging_scale
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

WRITTEN = 8  # columns; with more of them a number does not fit into its cell
Cells = Mapping[tuple[str, str], Estimate]


def add_cells(
    figure: "go.Figure",
    down: Sequence[str],
    across: Sequence[str],
    cells: Cells,
    ends: float = 1.0,
    strength: float = STRONGEST_TINT,
    hrefs: Mapping[tuple[str, str], str | None] | None = None,
) -> None:
    """Draw cells with their number and interval, or with the number on hover if there are many.

    Args:
        figure: with cartesian axes of its own.
        down: labels from the top; plotly markup.
        across: labels from the left.
        cells: (down, across) → number; cells without a value stay empty.
        ends: where the colours are strongest.
        strength: opacity of the strongest colour; where numbers stand on it, less is more.
        hrefs: where each number comes from.
    """
    import plotly.graph_objects as go

    known = {pair: value for pair, value in cells.items() if value.defined}
    lines, columns = range(len(down)), range(len(across))

    def grid(of: Mapping[tuple[str, str], object]) -> list[list[object]]:
        return [[of.get((down[i], across[j])) for j in columns] for i in lines]

    figure.add_trace(
        go.Heatmap(
            x=list(columns), y=list(lines), zmin=-ends, zmax=ends,
            colorscale=diverging_scale(strength),
            z=grid({pair: value.value for pair, value in known.items()}),
            text=grid(
                {(a, b): f"{a} × {b}<br>{in_words(value)}" for (a, b), value in known.items()}
            ),
            customdata=grid(hrefs) if hrefs else None, hovertemplate="%{text}<extra></extra>",
            showscale=False, xgap=2, ygap=2, hoverongaps=False,
        )
    )  # fmt: skip
    if len(across) <= WRITTEN:
        places = [(across.index(b), down.index(a)) for a, b in known]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in places], y=[y for _, y in places], mode="text",
                text=[_written(value) for value in known.values()], showlegend=False,
                hoverinfo="skip",
            )
        )  # fmt: skip
    bounds = {"showgrid": False, "tickmode": "array"}
    figure.update_xaxes(
        tickvals=list(columns), ticktext=list(across), range=[-0.5, len(across) - 0.5], **bounds
    )
    figure.update_yaxes(
        tickvals=list(lines), ticktext=list(down), range=[len(down) - 0.5, -0.5], **bounds
    )


def _written(value: Estimate) -> str:
    if value.low != value.low or value.high != value.high:
        return plain(value.value)
    # Narrow enough for a cell of four on a phone: no zero before the point.
    low, high = (plain(end).replace("0.", ".") for end in (value.low, value.high))
    return f'{plain(value.value)}<br><span style="font-size:9px">{low} to<br>{high}</span>'
