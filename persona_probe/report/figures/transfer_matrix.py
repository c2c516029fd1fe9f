"""Does one persona's direction do another persona's work?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from persona_probe.report.anchors import href
from persona_probe.report.canvas import canvas, nothing_measured
from persona_probe.report.estimates import estimate, number_in, plain, sample_sizes
from persona_probe.report.heatmap import add_cells
from persona_probe.report.palette import label

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]


def transfer_matrix(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """What each direction does (down) to what belongs to each persona (across).

    The diagonal is a direction's own persona. It dominates if directions are specific; equal rows
    mean that any of them will do.

    Args:
        rows: rows of transfer.json of one measure: `direction` (whose vector is added), `target`
            (whose effect is looked for), `measure` (profile: correlation with the signature of the
            target; safety: share of the target's finetuning effect), `value` (estimate),
            `control_95` (what 95 % of random directions stay below, if measured).
        colours: unused; cells have no persona's colour. Accepted because every figure is called
            alike.
    """
    del colours
    kept = [
        row
        for row in rows
        if estimate(row.get("value")).defined and {"direction", "target"} <= row.keys()
    ]
    across = list(dict.fromkeys(label(row["target"]) for row in kept))
    down = sorted(
        dict.fromkeys(label(row["direction"]) for row in kept),
        key=lambda name: across.index(name) if name in across else len(across),
    )
    measure = next((str(row["measure"]) for row in kept if row.get("measure")), "")
    figure = canvas(label(measure) or "Transfer", _subtitle(kept), 190 + 58 * len(down))
    if not kept:
        return nothing_measured(figure)
    cells, hrefs = {}, {}
    for row in kept:
        pair = label(row["direction"]), label(row["target"])
        cells[pair], hrefs[pair] = estimate(row["value"]), href(row)
    ends = max(1.0, *(abs(value.value) for value in cells.values()))
    add_cells(figure, down, across, cells, ends, hrefs=hrefs)
    figure.update_yaxes(title="direction added")
    figure.update_xaxes(title="persona", tickangle=0 if len(across) < 4 else -30)
    return figure


def _subtitle(rows: Rows) -> str:
    parts = [sample_sizes((estimate(row["value"]) for row in rows), "per cell")]
    own = [estimate(r["value"]).value for r in rows if r["direction"] == r["target"]]
    others = [estimate(r["value"]).value for r in rows if r["direction"] != r["target"]]
    if own and others:
        means = plain(sum(own) / len(own)), plain(sum(others) / len(others))
        parts.append(f"mean of the diagonal {means[0]}, of the rest {means[1]}")
    bands = [number_in(row.get("control_95")) for row in rows]
    if known := [band for band in bands if band == band]:
        parts.append(f"random directions: 95 % below {plain(max(known))}")
    return "<br>".join(part for part in parts if part)
