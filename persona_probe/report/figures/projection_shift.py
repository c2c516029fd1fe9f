"""How far did each finetuning move the model along a direction that was there before?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.canvas import canvas, chip, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in, sample_sizes
from persona_probe.report.palette import FAINT, GREY, colours_for, kind_of, label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
BEFORE = "helpful_only"
ROW, HEAD = 30, 118  # pixels


def projection_shift(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Mean projection of every finetune on one direction, beside that before finetuning.

    Args:
        rows: rows of landscape.json's `projections` for one direction (`direction`, `arm_kind`,
            `persona`, `seed`, `mean` and `shift` estimates in class gaps, `shift_null_95`): the
            row of `arm_kind` helpful_only is where all start; the others are drawn one line per
            model and persona, one symbol per seed. The band holds 95 % of mean shifts whose sign
            was reversed for half of the prompt families.
        colours: persona → colour.
    """
    moved = [row for row in rows if estimate(row.get("shift")).defined]
    whose = list(dict.fromkeys(str(r["direction"]) for r in rows if r.get("direction")))
    colours = colours_for([*rows, *({"persona": name} for name in whose)], colours)
    lines = _lines(moved, whose)
    sizes = sample_sizes((estimate(row.get("shift")) for row in moved), "held-out prompts")
    title = ", ".join(chip(colours[name], label(name)) for name in whose)
    figure = canvas(title or "Before and after", sizes, HEAD + ROW * max(len(lines), 3))
    start = next((r for r in rows if r.get("arm_kind") == BEFORE), None)
    if not moved:
        return nothing_measured(figure)
    origin = estimate((start or {}).get("mean"))
    at = origin.value if origin.defined else 0.0
    places = {key: -float(index) for index, key in enumerate(lines)}
    _band(figure, moved, places, at)
    if start is not None:
        figure.add_trace(
            points(
                list(places.values()), [origin] * len(places), rows=[start] * len(places),
                hover=["before finetuning"] * len(places), name="before finetuning",
                marker={"symbol": kind_of(BEFORE).symbol, "size": 8, "color": GREY},
            )
        )  # fmt: skip
    shown: set[str] = set()
    for (kind, persona), own in lines.items():
        style = kind_of(kind)
        colour = colours.get(str(persona), GREY) if persona is not None else GREY
        words = style.words if style.own else "control finetuning"
        offsets = [0.16 * (i - (len(own) - 1) / 2) for i in range(len(own))]
        figure.add_trace(
            points(
                [places[kind, persona] - offset for offset in offsets],
                [estimate(row.get("mean")) for row in own], rows=own,
                hover=[f"{label(row.get('arm'))}, moved {_signed(row)}" for row in own],
                name=words, showlegend=words not in shown,
                marker={"symbol": style.symbol, "size": 9, "color": colour},
            )
        )  # fmt: skip
        shown.add(words)
    figure.update_yaxes(
        tickvals=list(places.values()), ticktext=[_name(*key, whose) for key in places],
        range=[min(places.values()) - 0.6, 0.6], showgrid=False,
    )  # fmt: skip
    figure.update_xaxes(title="along the direction, in class gaps")
    return figure


def _lines(moved: Rows, whose: list[str]) -> dict[tuple[str, str | None], Rows]:
    """Seeds of one kind and persona together; the direction's own persona first."""
    found: dict[tuple[str, str | None], Rows] = {}
    for row in moved:
        persona = row.get("persona")
        found.setdefault((str(row.get("arm_kind")), persona and str(persona)), []).append(row)

    def order(key: tuple[str, str | None]) -> tuple[bool, bool]:
        return key[1] is None, key[1] not in whose

    return {key: found[key] for key in sorted(found, key=order)}


def _name(kind: str, persona: str | None, whose: list[str]) -> str:
    if persona is None:
        return label(kind_of(kind).words)
    own = f"<b>{label(persona)}</b>" if persona in whose else label(persona)
    return own + (", broadly" if kind == "broad" else "")


def _signed(row: dict[str, Any]) -> str:
    value = estimate(row.get("shift"))
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _band(figure: "go.Figure", moved: Rows, places: Mapping[Any, float], at: float) -> None:
    import plotly.graph_objects as go

    nulls = [number_in(row.get("shift_null_95")) for row in moved]
    widest = max((null for null in nulls if null == null), default=None)
    if widest is None:
        return
    ends = [min(places.values()) - 0.6, 0.6]
    figure.add_trace(
        go.Scatter(
            x=[at - widest, at + widest, at + widest, at - widest], y=[ends[0], ends[0], ends[1],
            ends[1]], fill="toself", fillcolor=FAINT, mode="lines", hoverinfo="skip",
            line={"width": 0, "color": GREY}, name="before and after swapped at random, 95 %",
        )
    )  # fmt: skip
