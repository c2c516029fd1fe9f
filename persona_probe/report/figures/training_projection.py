"""When, during finetuning, does the model move along a direction that was there before?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import GRID, canvas, nothing_measured, spread
from persona_probe.report.estimates import in_words, number_in, plain, sample_sizes
from persona_probe.report.palette import (
    FAINT,
    GREY,
    colours_for,
    label,
    persona_symbols,
    translucent,
)
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
RANDOM = "random"


def training_projection(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Mean projection by training step with its interval, above the training loss.

    Args:
        rows: rows of a finetuning's projection.jsonl: `step`, `epoch`, `direction` (whose; names
            that begin with "random" are controls and give the band: one row per step says its ends
            as `low` and `high`, several are draws and give the 5th to the 95th percentile),
            `site`, `mean`, `low`, `high` (moved since before training, in standard deviations that
            the texts had along the direction then), `n` (texts), `loss` (nats per token). One site
            per figure: the first one.
        colours: direction → colour.
    """
    sites = list(dict.fromkeys(row.get("site") for row in rows))
    kept = [row for row in rows if row.get("site") == sites[0] and _step(row) == _step(row)]
    own = [row for row in kept if not _random(row)]
    names = list(dict.fromkeys(str(row["direction"]) for row in own if row.get("direction")))
    colours = colours_for([{"persona": name} for name in names], colours)
    values = [_value(row) for row in own]
    where = f"layer {label(sites[0])}" if sites and sites[0] is not None else ""
    sizes = ", ".join(part for part in (where, sample_sizes(values, "texts per step")) if part)
    figure = canvas("Projection during training", sizes, 430)
    if not names or not any(value.defined for value in values):
        return nothing_measured(figure)
    _controls(figure, [row for row in kept if _random(row)])
    symbols = persona_symbols(colours)
    for name in names:
        mine = [r for r in own if str(r.get("direction")) == name and _value(r).defined]
        _line(figure, sorted(mine, key=_step), name, colours[name], symbols[name])
    _loss(figure, kept)
    figure.update_layout(
        xaxis={"title": "training step", "anchor": "y2"},
        yaxis={"domain": [0.36, 1.0], "title": "moved by, sd"},
        yaxis2={
            "domain": [0.0, 0.26], "title": "loss", "gridcolor": GRID, "zeroline": False,
            "fixedrange": True, "automargin": True, "rangemode": "tozero",
        },
    )  # fmt: skip
    return figure


def _step(row: Mapping[str, Any]) -> float:
    return number_in(row.get("step"))


def _random(row: Mapping[str, Any]) -> bool:
    return str(row.get("direction")).startswith(RANDOM)


def _value(row: Mapping[str, Any]) -> Estimate:
    keys = ("mean", "low", "high")
    mean, low, high = (number_in(row.get(key)) for key in keys)
    n = number_in(row.get("n"))
    reason = None if mean == mean else "not measured"
    return Estimate(mean, low, high, int(n) if n == n else 0, 0, reason=reason)


def _line(figure: "go.Figure", rows: Rows, name: str, colour: str, symbol: str) -> None:
    """The mean over its interval, which is a band because steps are many."""
    import plotly.graph_objects as go

    values, steps = [_value(row) for row in rows], [_step(row) for row in rows]
    bounded = [(s, v) for s, v in zip(steps, values, strict=True) if v.low == v.low]
    around = [*((s, v.high) for s, v in bounded), *((s, v.low) for s, v in reversed(bounded))]
    if around:
        figure.add_trace(
            go.Scatter(
                x=[step for step, _ in around], y=[end for _, end in around], fill="toself",
                fillcolor=translucent(colour, 0.2), line={"width": 0}, mode="lines",
                hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    texts = [
        f"{label(name)}, step {step:g}{_epoch(row)}<br>{in_words(value)}"
        for step, row, value in zip(steps, rows, values, strict=True)
    ]
    figure.add_trace(
        go.Scatter(
            x=steps, y=[value.value for value in values], mode="lines+markers", name=label(name),
            text=texts, hovertemplate="%{text}<extra></extra>", line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 6, "color": colour},
        )
    )  # fmt: skip


def _epoch(row: Mapping[str, Any]) -> str:
    epoch = number_in(row.get("epoch"))
    return "" if epoch != epoch else f", epoch {plain(epoch)}"


def _controls(figure: "go.Figure", rows: Rows) -> None:
    """The range of random directions at each step."""
    import plotly.graph_objects as go

    steps = sorted({_step(row) for row in rows})
    summed = all(sum(_step(row) == step for row in rows) == 1 for step in steps)
    found = {s: ends for s in steps if (ends := _ends([r for r in rows if _step(r) == s]))}
    if not found:
        return
    shared = {"x": list(found), "mode": "lines", "line": {"width": 0, "color": GREY}}
    low = go.Scatter(y=[e[0] for e in found.values()], showlegend=False, hoverinfo="skip", **shared)
    high = go.Scatter(
        y=[e[1] for e in found.values()], fill="tonexty", fillcolor=FAINT, hoverinfo="skip",
        name=f"random directions, {'middle 95 %' if summed else '5–95 %'}", **shared,
    )  # fmt: skip
    figure.add_traces([low, high])


def _ends(rows: Rows) -> tuple[float, float] | None:
    """Of the band at one step: a single row says them, several rows are draws."""
    if len(rows) == 1 and _value(rows[0]).defined and _value(rows[0]).low == _value(rows[0]).low:
        return _value(rows[0]).low, _value(rows[0]).high
    band = spread(row.get("mean") for row in rows)
    return None if band is None else (band[0], band[2])


def _loss(figure: "go.Figure", rows: Rows) -> None:
    import plotly.graph_objects as go

    found = {_step(row): number_in(row.get("loss")) for row in rows}
    known = sorted((step, loss) for step, loss in found.items() if loss == loss)
    if known:
        figure.add_trace(
            go.Scatter(
                x=[step for step, _ in known], y=[loss for _, loss in known], mode="lines",
                line={"color": GREY, "width": 1.6}, yaxis="y2", showlegend=False,
                hovertemplate="step %{x}, loss %{y:.3f}<extra></extra>",
            )
        )  # fmt: skip
