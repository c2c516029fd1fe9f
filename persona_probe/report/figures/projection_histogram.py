"""How far apart do two groups of examples lie along a direction?"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_probe.report.canvas import GRID, canvas, chip, nothing_measured, points
from persona_probe.report.estimates import estimate, number_in
from persona_probe.report.palette import GREY, colours_for, kind_of, label, translucent

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
CONTRASTS = {
    "prompt_in_H": "as the persona, or no one",
    "model_diff": "after finetuning, or before",
}
BASES = ("neutral", "helpful_only")
OWN = ("system_prompt", "finetuned")
CONTROL = "placebo"
BINS = 26


def projection_histogram(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Shares of held-out examples along one persona's direction, with each group's mean.

    Args:
        rows: rows of landscape.json's `projections` for one direction and one contrast:
            `direction` (whose), `contrast` prompt_in_H | model_diff, `arm_kind` neutral |
            system_prompt | helpful_only | finetuned | placebo, `persona` (of the model), `values`
            (one per example, in class gaps: -0.5 and +0.5 are the class means that the direction
            was found between), `mean` (estimate). Of the finetuned models the direction's own
            are drawn, seeds together; the placebo is the control, as an outline.
        colours: persona → colour.
    """
    personas = list(dict.fromkeys(str(r["direction"]) for r in rows if r.get("direction")))
    colours = colours_for([{"persona": name} for name in personas], colours)
    name = personas[0] if personas else ""
    groups = {kind: _group(rows, kind, name) for kind in (*BASES, *OWN, CONTROL)}
    groups = {kind: found for kind, found in groups.items() if found}
    sizes = [f"{kind_of(k).words} {len(_values(found))}" for k, found in groups.items()]
    contrast = next((str(r["contrast"]) for r in rows if r.get("contrast")), "")
    title = f"{chip(colours[name], label(name))}: {CONTRASTS.get(contrast, '')}" if name else ""
    figure = canvas(title or "Projections", f"n = {', '.join(sizes)}" if sizes else "", 300)
    if not any(kind in groups for kind in (*BASES, *OWN)):
        return nothing_measured(figure)
    every = np.concatenate([_values(found) for found in groups.values()])
    edges = np.linspace(every.min(), every.max(), BINS + 1)
    top = 0.0
    for kind, found in groups.items():
        share = np.histogram(_values(found), edges)[0] / len(_values(found))
        top = max(top, float(share.max()))
        figure.add_trace(_outline(share, edges, kind, colours[name]))
    for place, (kind, found) in enumerate(groups.items()):
        height = top * (1.08 + 0.09 * place)
        colour = colours[name] if kind in OWN else GREY
        figure.add_trace(
            points(
                [height] * len(found), [estimate(row.get("mean")) for row in found], rows=found,
                hover=[f"mean of {kind_of(kind).words}"] * len(found), showlegend=False,
                marker={"symbol": kind_of(kind).symbol, "size": 8, "color": colour},
            )
        )  # fmt: skip
    figure.update_xaxes(title="along the direction, in class gaps")
    figure.update_yaxes(title="share of examples", range=[0, top * 1.5], gridcolor=GRID)
    return figure


def _group(rows: Rows, kind: str, direction: str) -> Rows:
    """Rows of one kind; of finetuned models those of the direction's own persona."""
    return [
        row
        for row in rows
        if row.get("arm_kind") == kind
        and len(_values([row]))
        and (kind not in OWN or row.get("persona") in (direction, None))
    ]


def _values(rows: Rows) -> np.ndarray:
    several: list[Sequence[Any]] = [row.get("values") or () for row in rows]
    numbers: np.ndarray = np.array(
        [number_in(value) for values in several for value in values], dtype=float
    )
    finite: np.ndarray = numbers[np.isfinite(numbers)]
    return finite


def _outline(share: np.ndarray, edges: np.ndarray, kind: str, colour: str) -> "go.Scatter":
    import plotly.graph_objects as go

    own, control = kind in OWN, kind == CONTROL
    ink = colour if own else GREY
    filled = {} if control else {"fill": "tozeroy", "fillcolor": translucent(ink, 0.28)}
    return go.Scatter(
        x=np.repeat(edges, 2).tolist(), y=[0.0, *np.repeat(share, 2).tolist(), 0.0], mode="lines",
        name=kind_of(kind).words, hoverinfo="skip",
        line={"color": ink, "width": 1.6, "dash": "dot" if control else "solid"}, **filled,
    )  # fmt: skip
