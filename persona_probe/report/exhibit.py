"""One exhibit of the page: figures, their shared key, how to read them, the numbers behind them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from persona_probe.report.markup import Child, Markup, element, join, table
from persona_probe.report.palette import GREY

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHAPES = {
    "circle": '<circle cx="7" cy="7" r="4.5" fill="currentColor"/>',
    "circle-open": '<circle cx="7" cy="7" r="4" class="open"/>',
    "diamond": '<path d="M7 1.5 12.5 7 7 12.5 1.5 7Z" fill="currentColor"/>',
    "diamond-open": '<path d="M7 2 12 7 7 12 2 7Z" class="open"/>',
    "triangle-down-open": '<path d="M2 3h10L7 12Z" class="open"/>',
    "square": '<path d="M3 3h8v8H3Z" fill="currentColor"/>',
    "triangle-up": '<path d="M2.5 11h9L7 3Z" fill="currentColor"/>',
    "x-thin": '<path d="M3 3l8 8M11 3l-8 8" class="open"/>',
    "triangle-down": '<path d="M3 4h8L7 11Z" fill="currentColor"/>',
    "square-open": '<path d="M3 3h8v8H3Z" class="open"/>',
    "circle-open-dot": '<g><circle cx="7" cy="7" r="4.4" class="open"/>'
    '<circle cx="7" cy="7" r="1.4" fill="currentColor"/></g>',
    "diamond-wide": '<path d="M7 3.5 13 7 7 10.5 1 7Z" fill="currentColor"/>',
    "diamond-tall": '<path d="M7 0.5 10.5 7 7 13.5 3.5 7Z" fill="currentColor"/>',
    "cross": '<path d="M5.2 2h3.6v3.2H12v3.6H8.8V12H5.2V8.8H2V5.2h3.2Z" fill="currentColor"/>',
    "line-ns": '<path d="M7 1v12" stroke="currentColor" stroke-width="3.5"/>',
}
DASHES = {"dot": "2 3", "dash": "6 4", "dashdot": "7 3 2 3"}


def exhibit(
    figures: Sequence["go.Figure"],
    reading: Child,
    numbers: Markup | None = None,
    neutral_key: bool = False,
    width: int | None = None,
    notice: Markup | None = None,
    columns: int = 2,
) -> Markup:
    """Figures side by side as far as the page is wide, then words, then a table that unfolds.

    Args:
        figures: drawn with their own legends switched off; one key serves them all.
        reading: how to read the figure, for the caption.
        numbers: what is drawn, as a table.
        notice: which of the files behind it are missing; shown in its place or above it.
        width: of a single figure at most, in pixels.
        columns: of figures at most, where the page is wide enough.
        neutral_key: whether the key shows symbols without colour, because panels differ in it.
    """
    drawn = [figure for figure in figures if figure.data]
    if not drawn:
        return notice or element("p", "Not measured in this run.", class_="absent")
    key = _key(drawn, neutral_key)
    fold = None
    if numbers is not None:
        fold = element(
            "details", element("summary", "The numbers behind it"), numbers, class_="long"
        )
    drawing = element(
        "figure",
        key,
        element(
            "div",
            map(_plot, drawn),
            class_=("panels" if columns == 2 else "panels narrow") if len(drawn) > 1 else "panel",
            style=f"max-width:{width}px" if width and len(drawn) == 1 else None,
        ),
        element("figcaption", reading),
        fold,
    )
    return join([notice, drawing])


def numbers_table(head: Iterable[Child], rows: Iterable[Iterable[Child]]) -> Markup | None:
    """A table of what is drawn; none without rows."""
    kept = list(rows)
    return table(head, kept, class_="numbers") if kept else None


def script_data(json_text: str) -> Markup:
    """JSON that cannot end the script element that holds it."""
    return Markup(json_text.replace("<", "\\u003c"))


def _plot(figure: "go.Figure") -> Markup:
    from plotly.io.json import to_json_plotly

    quiet = figure.to_dict()
    quiet["layout"]["showlegend"] = False
    payload = element("script", script_data(to_json_plotly(quiet)), type="application/json")
    height = f"min-height:{int(figure.layout.height)}px"
    return element("div", payload, class_="plot", style=height)


def _key(figures: Sequence["go.Figure"], neutral: bool) -> Markup | None:
    entries = dict(reversed([entry for figure in figures for entry in _entries(figure, neutral)]))
    if not entries:
        return None
    items = [element("li", swatch, name) for name, swatch in reversed(entries.items())]
    return element("ul", items, class_="key")


def _entries(figure: "go.Figure", neutral: bool) -> Iterator[tuple[str, Markup]]:
    """Name and swatch of every trace that a legend would list."""
    for trace in sorted(figure.data, key=lambda trace: trace.legendrank or 1000):
        if trace.type == "scatter" and trace.name and trace.showlegend is not False:
            yield str(trace.name), _swatch(trace, neutral)


def _swatch(trace: Any, neutral: bool) -> Markup:
    mode = str(trace.mode or "")
    colour = str((trace.line.color if "lines" in mode else None) or trace.marker.color or GREY)
    shapes = []
    if trace.fill and trace.fill != "none":
        shapes.append('<rect x="0" y="1" width="26" height="12" fill="currentColor" opacity=".3"/>')
    elif "lines" in mode and (trace.line.width or 0) > 10:
        shapes.append('<rect x="0" y="2" width="26" height="10" fill="currentColor" opacity=".3"/>')
    elif "lines" in mode:
        dash = DASHES.get(str(trace.line.dash), "none")
        shapes.append(
            f'<path d="M0 7h26" stroke="currentColor" stroke-width="{trace.line.width or 2}" '
            f'stroke-dasharray="{dash}"/>'
        )
    if "markers" in mode:
        shape = SHAPES.get(str(trace.marker.symbol or "circle"), SHAPES["circle"])
        shapes.append(f'<g transform="translate(6 0)">{shape}</g>')
    ink = "currentColor" if neutral and colour.startswith("#") and colour != GREY else colour
    if colour.startswith("rgba"):
        ink = GREY
    return element(
        "svg", Markup("".join(shapes)), class_="swatch", viewBox="0 0 26 14", width="26",
        height="14", aria_hidden="true", style=f"color:{ink}",
    )  # fmt: skip
