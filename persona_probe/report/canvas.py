"""What all figures share: a quiet frame, error bars, and the band that random controls draw."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona_probe.report.anchors import href
from persona_probe.report.estimates import estimate, in_words, plain
from persona_probe.report.palette import FAINT, GREY, translucent
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

GRID = "rgba(133, 138, 147, 0.18)"
FADED = 0.5  # opacity of what should not be built on
SMALL_PRINT = 56  # characters of the second title line that fit a screen 390 pixels wide
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Helvetica, Arial, sans-serif"


def canvas(title: str, sizes: str, height: int) -> "go.Figure":
    """An empty figure on a transparent ground.

    Args:
        title: short, at the top left; plotly markup.
        sizes: what n is, in words; shown under the title.
        height: pixels; the width follows the page.
    """
    import plotly.graph_objects as go

    small = [wrapped for line in sizes.split("<br>") for wrapped in _wrapped(line)]
    titles = {"title": {"standoff": 8, "font": {"size": 12.5}}}
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
    }
    return go.Figure(
        layout={
            # Figures set titles by their text, which would drop a font that stands in the layout.
            "template": go.layout.Template(layout={"xaxis": titles, "yaxis": titles}),
            "height": height,
            "margin": {"l": 8, "r": 14, "t": 41 + 17 * len(small), "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            # Mid grey reads on white and on black; the page's script darkens or lightens it.
            "font": {"family": FONT, "size": 12.5, "color": "#6d727b"},
            "title": {
                "text": f'{title}<br><span style="font-size:11.5px">{"<br>".join(small)}</span>',
                "font": {"size": 14.5},
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 20},
            },
            "xaxis": axis,
            "yaxis": axis,
            "hovermode": "closest",
            # Below the axis title, whatever the height; the page shows a key of its own.
            "legend": {
                "orientation": "h",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "x": 0,
            },
        }
    )


def _wrapped(line: str) -> list[str]:
    """A line of small print in pieces that a phone shows whole, broken at commas."""
    pieces: list[str] = []
    for part in line.split(", "):
        if pieces and len(pieces[-1]) + len(part) + 2 <= SMALL_PRINT:
            pieces[-1] += f", {part}"
        else:
            if pieces:
                pieces[-1] += ","
            pieces.append(part)
    return pieces


def nothing_measured(figure: "go.Figure") -> "go.Figure":
    """Say in the figure that there was nothing to draw."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=160)
    figure.add_annotation(
        text="not measured", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
    )
    return figure


def chip(colour: str, text: str) -> str:
    """A title that starts with the persona's colour."""
    return f'<span style="color:{colour}">●</span> {text}'


def faded(text: str) -> str:
    """A name of what should not be built on; plotly markup."""
    return f'<span style="color:{translucent(GREY, FADED)}"><i>{text}</i></span>'


def points(
    places: Sequence[float],
    values: Sequence[Estimate],
    horizontal: bool = True,
    hover: Sequence[str] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    **style: Any,
) -> "go.Scatter":
    """Markers with their intervals, and value, interval and n on hover.

    Args:
        places: position of each value on the other axis.
        values: undefined ones are left out.
        horizontal: whether values run along x.
        hover: what each point is, before its number.
        rows: where each value comes from; in a report a click on a point shows its row.
        style: anything else of `go.Scatter`, for instance `name` and `marker`.
    """
    import plotly.graph_objects as go

    names = hover or [""] * len(values)
    links = [href(row) for row in rows] if rows is not None else [None] * len(values)
    drawn = [t for t in zip(places, values, names, links, strict=True) if t[1].defined]
    numbers = [value.value for _, value, _, _ in drawn]
    at = [place for place, *_ in drawn]
    colour = style.get("marker", {}).get("color", GREY)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [_reach(value.high, value.value) for _, value, _, _ in drawn],
        "arrayminus": [_reach(value.value, value.low) for _, value, _, _ in drawn],
        "thickness": 1.4,
        "width": 0,
        "color": colour,
    }
    return go.Scatter(
        x=numbers if horizontal else at,
        y=at if horizontal else numbers,
        text=[f"{name}<br>{in_words(value)}".removeprefix("<br>") for _, value, name, _ in drawn],
        customdata=[link for *_, link in drawn] if any(link for *_, link in drawn) else None,
        hovertemplate="%{text}<extra></extra>",
        **{"error_x" if horizontal else "error_y": bars},
        **({"mode": "markers"} | style),
    )


def spread(values: Iterable[Any]) -> tuple[float, float, float, int] | None:
    """5th percentile, median and 95th percentile over control draws, and how many there were.

    Returns:
        `None` when no draw was measured.
    """
    import numpy as np

    numbers = [e.value for e in map(estimate, values) if e.defined]
    if not numbers:
        return None
    low, middle, high = np.quantile(numbers, (0.05, 0.5, 0.95))
    return float(low), float(middle), float(high), len(numbers)


def band_marks(draws: Mapping[float, Iterable[Any]]) -> "list[go.Scatter]":
    """Translucent strokes along x from the 5th to the 95th percentile, ticked at the median.

    Args:
        draws: position on the other axis → values of the control draws there.
    """
    import plotly.graph_objects as go

    found = {place: band for place, values in draws.items() if (band := spread(values))}
    if not found:
        return []
    name = "random directions, 5–95 %"
    texts = [
        f"{name}<br>median {plain(middle)} [{plain(low)}, {plain(high)}], {n} directions"
        for low, middle, high, n in found.values()
    ]
    shared = {"hovertemplate": "%{text}<extra></extra>", "legendgroup": name}
    # One trace with gaps: a trace per stroke would be slow to draw.
    strokes = go.Scatter(
        x=[x for low, _, high, _ in found.values() for x in (low, high, None)],
        y=[y for place in found for y in (place, place, None)],
        text=[t for text in texts for t in (text, text, None)],
        mode="lines", name=name, line={"width": 13, "color": FAINT}, **shared,
    )  # fmt: skip
    ticks = go.Scatter(
        x=[middle for _, middle, _, _ in found.values()], y=list(found), text=texts,
        mode="markers", showlegend=False,
        marker={"symbol": "line-ns-open", "size": 17, "color": GREY}, **shared,
    )  # fmt: skip
    return [strokes, ticks]


def _reach(upper: float, lower: float) -> float:
    """Length of one side of an error bar; none where the interval is unknown."""
    return max(upper - lower, 0.0) if upper == upper and lower == lower else 0.0
