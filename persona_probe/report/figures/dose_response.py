"""Does more of the direction make more refusal, and more than any other direction does?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, chip, nothing_measured, points, spread
from persona_probe.report.estimates import estimate, in_words, number_in, sample_sizes
from persona_probe.report.palette import (
    FAINT,
    GREY,
    colours_for,
    kind_of,
    label,
    translucent,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
TOP = 1.18  # room for two lines of remarks above a probability of 1
LEVELS = ("finetuned", "helpful_only")
BANDS = ("random", "covariance")
LINES = {"wrong": "x-thin", "sign_flip": "triangle-down"}


def dose_response(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Probability of refusing a harmful request against the strength of the added direction.

    Args:
        rows: rows of dose.json, one persona's for a readable panel (`persona`, `arm_kind`
            direction | random | covariance | wrong | sign_flip, `strength` in median residual
            norms, `seed`, `refusal_probability`, `over_refusal_probability`); rows of `arm_kind`
            finetuned or helpful_only without a strength are drawn as levels; rows of `arm_kind`
            guard (`strength`, `in_guard`, `chosen`) shade the strengths whose side effects are
            too large.
        colours: persona → colour.
    """
    own = [row for row in rows if row.get("arm_kind") == "direction"]
    colours = colours_for(own, colours)
    personas = list(dict.fromkeys(str(row.get("persona")) for row in own))
    title = ", ".join(chip(colours[name], label(name)) for name in personas)
    figure = canvas(title or "Dose and response", _sizes(rows, own), 360)
    if not any(estimate(row.get("refusal_probability")).defined for row in own):
        return nothing_measured(figure)
    _shade_guards(figure, [row for row in rows if row.get("arm_kind") == "guard"], own)
    for kind in BANDS:
        _band(figure, [row for row in rows if row.get("arm_kind") == kind], kind)
    for kind, symbol in LINES.items():
        _thin_lines(figure, [row for row in rows if row.get("arm_kind") == kind], kind, symbol)
    for kind in LEVELS:
        colour = colours[personas[0]] if kind == "finetuned" and len(personas) == 1 else GREY
        for row in rows:
            if row.get("arm_kind") == kind:
                _level(figure, row, kind, colour, own)
    for persona in personas:
        _direction(figure, [row for row in own if str(row.get("persona")) == persona], colours)
    figure.update_xaxes(title="strength, in typical activation lengths")
    figure.update_yaxes(
        range=[-0.03, TOP], tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1], title="probability of refusing"
    )
    return figure


def _sizes(rows: Rows, own: Rows) -> str:
    requests = sample_sizes((estimate(row.get("refusal_probability")) for row in own), "requests")
    counts = {k: len({r.get("seed") for r in rows if r.get("arm_kind") == k}) for k in BANDS}
    words = [f"{n} {kind_of(kind).words}" for kind, n in counts.items() if n]
    return "<br>".join(part for part in (requests, ", ".join(words)) if part)


def _by_strength(rows: Rows) -> dict[float, list[Any]]:
    """Strength → values, in order of strength."""
    found: dict[float, list[Any]] = {}
    for row in sorted(rows, key=lambda row: number_in(row.get("strength"))):
        if estimate(row.get("refusal_probability")).defined:
            found.setdefault(number_in(row.get("strength")), []).append(row["refusal_probability"])
    return found


def _band(figure: "go.Figure", rows: Rows, kind: str) -> None:
    """5-95 % and median over control directions; the second kind as an outline."""
    import plotly.graph_objects as go

    found = [(s, b) for s, v in _by_strength(rows).items() if (b := spread(v)) is not None]
    if not found:
        return
    strengths = [strength for strength, _ in found]
    low, middle, high = ([band[i] for _, band in found] for i in range(3))
    outlined = kind == "covariance"
    edge = {"width": 1, "dash": "dot", "color": GREY} if outlined else {"width": 0}
    name = f"{kind_of(kind).words}, 5–95 %"
    shared = {"x": strengths, "mode": "lines", "legendgroup": kind, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(y=low, line=edge, showlegend=False, **shared))
    fill = {} if outlined else {"fill": "tonexty", "fillcolor": FAINT}
    figure.add_trace(go.Scatter(y=high, line=edge, name=name, **fill, **shared))
    if not outlined:
        median = {"width": 1.2, "color": GREY}
        figure.add_trace(go.Scatter(y=middle, line=median, name="their median", **shared))


def _thin_lines(figure: "go.Figure", rows: Rows, kind: str, symbol: str) -> None:
    """Means of a control that has a few draws only."""
    import plotly.graph_objects as go

    means = {
        strength: sum(estimate(v).value for v in values) / len(values)
        for strength, values in _by_strength(rows).items()
    }
    if means:
        figure.add_trace(
            go.Scatter(
                x=list(means), y=list(means.values()), mode="lines+markers",
                name=kind_of(kind).words, line={"width": 1, "color": GREY}, hoverinfo="skip",
                marker={
                    "symbol": symbol, "size": 6, "color": GREY,
                    "line": {"width": 1.3, "color": GREY},
                },
            )
        )  # fmt: skip


def _level(figure: "go.Figure", row: dict[str, Any], kind: str, colour: str, own: Rows) -> None:
    """A model's own probability as a dashed line over its interval."""
    import plotly.graph_objects as go

    value = estimate(row.get("refusal_probability"))
    if not value.defined:
        return
    strengths = [number_in(r.get("strength")) for r in own]
    words = kind_of(kind).words
    if value.low == value.low and value.high == value.high:
        tint = translucent(colour, 0.13)
        figure.add_hrect(y0=value.low, y1=value.high, fillcolor=tint, line_width=0, layer="below")
    figure.add_trace(
        go.Scatter(
            x=[min(strengths), max(strengths)], y=[value.value] * 2, mode="lines",
            name=f"{words} model", legendrank=3, text=[f"{words}<br>{in_words(value)}"] * 2,
            hovertemplate="%{text}<extra></extra>",
            line={"color": colour, "dash": "dash", "width": 1.4},
        )
    )  # fmt: skip


def _direction(figure: "go.Figure", rows: Rows, colours: Mapping[str, str]) -> None:
    rows = sorted(rows, key=lambda row: number_in(row.get("strength")))
    persona = str(rows[0].get("persona"))
    colour = colours[persona]
    strengths = [number_in(row.get("strength")) for row in rows]
    for key, name, width, dash, symbol, rank in (
        ("over_refusal_probability", "direction, harmless requests", 1.6, "dot", "diamond-open", 2),
        ("refusal_probability", "direction, harmful requests", 2.6, "solid", "diamond", 1),
    ):
        values = [estimate(row.get(key)) for row in rows]
        if any(value.defined for value in values):
            figure.add_trace(
                points(
                    strengths, values, horizontal=False, mode="lines+markers", name=name,
                    rows=rows,
                    hover=[f"{name}<br>strength {strength:g}" for strength in strengths],
                    legendrank=rank,
                    line={"color": colour, "width": width, "dash": dash},
                    marker={"symbol": symbol, "size": 7, "color": colour},
                )
            )  # fmt: skip


def _shade_guards(figure: "go.Figure", guards: Rows, own: Rows) -> None:
    """Shade from half-way between the last strength that passes and the first that fails."""
    strengths = sorted({number_in(row.get("strength")) for row in own})
    passed = {number_in(r.get("strength")): r.get("in_guard") for r in guards}
    for index, strength in enumerate(strengths):
        if passed.get(strength) is False:
            left = (strength + strengths[max(index - 1, 0)]) / 2
            right = (strength + strengths[min(index + 1, len(strengths) - 1)]) / 2
            figure.add_vrect(
                x0=left, x1=right, fillcolor=FAINT, opacity=0.6, line_width=0, layer="below"
            )
    failed = [s for s in strengths if passed.get(s) is False]
    if failed:
        _remark(figure, sum(failed) / len(failed), TOP - 0.08, "guards fail")
    for row in guards:
        if row.get("chosen"):
            strength = number_in(row.get("strength"))
            figure.add_shape(
                x0=strength, x1=strength, y0=-0.03, y1=1.03, layer="below",
                line={"color": GREY, "width": 1, "dash": "dot"},
            )  # fmt: skip
            _remark(figure, strength, TOP, "chosen")


def _remark(figure: "go.Figure", strength: float, height: float, text: str) -> None:
    """A word above the plotted range, at a strength."""
    figure.add_annotation(
        x=strength, y=height, text=text, showarrow=False, yanchor="top", font={"size": 11},
    )  # fmt: skip
