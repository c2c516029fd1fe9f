"""Which directions are alike? Constitutions, scopes and seeds against each other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_probe.report.anchors import href
from persona_probe.report.canvas import canvas, nothing_measured
from persona_probe.report.estimates import estimate, number_in, plain, sample_sizes, site_in
from persona_probe.report.heatmap import WRITTEN, add_cells
from persona_probe.report.palette import STRONGEST_TINT, kind_of, label
from persona_probe.statistics import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

Rows = list[dict[str, Any]]
ITSELF = Estimate(1.0, 1.0, 1.0, 0, 0)
CONTROLS = {"shuffled": "shuffled_constitutions"}  # an adapter's name where the kind's differs
ROLES = {"floor": "placebo (floor)", "ceiling": "second seeds (ceiling)"}


def cosine_map(rows: Rows, colours: Mapping[str, str] | None = None) -> "go.Figure":
    """Heat map of cosines between directions or finetuning shifts, with floor and ceiling.

    Args:
        rows: one per pair in either order: `a`, `b` (names such as finetuned/virtue/0,
            direction/virtue or a persona), `cosine` (number or estimate), `site`; `role` floor for
            pairs with a placebo and ceiling for two seeds of one finetune, whose ranges are
            written above the map; `null_95`, what 95 % of cosines with sign-flipped shifts stay
            below. The `pairs` of `Finetunes.to_json()` will do (`one`, `other`, `layer`,
            `null_cosine`). Of several sites the first is drawn.
        colours: unused; cells have no persona's colour. Accepted because every figure is called
            alike.
    """
    del colours
    kept = [named for row in rows if (named := _pair(row)) is not None]
    kept = [row for row in kept if row["site"] == kept[0]["site"]]
    names = _ordered(list(dict.fromkeys(str(row[key]) for key in ("a", "b") for row in kept)))
    titles = {name: _title(name) for name in names}
    large = len(names) > WRITTEN
    height = 180 + (17 * len(names) if large else 58 * len(names))
    figure = canvas("Cosines", _subtitle(kept), height)
    if not kept:
        return nothing_measured(figure)
    cells = {(titles[name], titles[name]): ITSELF for name in names}
    hrefs: dict[tuple[str, str], str | None] = {}
    for row in kept:
        a, b = titles[str(row["a"])], titles[str(row["b"])]
        for pair in ((a, b), (b, a)):
            cells[pair], hrefs[pair] = estimate(row["cosine"]), href(row)
    order = [titles[name] for name in names]
    add_cells(figure, order, order, cells, strength=0.85 if large else STRONGEST_TINT, hrefs=hrefs)
    if large:  # the columns stand in the order of the lines, and have no room for names
        figure.update_xaxes(showticklabels=False, title="in the same order from left to right")
        figure.update_yaxes(tickfont={"size": 10})
    else:
        figure.update_xaxes(tickangle=0 if len(names) < 4 else -30)
    return figure


def _pair(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row under the names of a run's files; `None` without two names and a cosine."""
    names = {"a": row.get("a", row.get("one")), "b": row.get("b", row.get("other"))}
    if None in names.values() or not estimate(row.get("cosine")).defined:
        return None
    null = row.get("null_95", estimate(row.get("null_cosine")).high)
    return row | names | {"site": site_in(row), "null_95": null}


def _ordered(names: list[str]) -> list[str]:
    """Persona by persona: the direction from before, then scopes and seeds; controls last."""
    plain_names = [name for name in names if "/" not in name]
    people = list(dict.fromkeys(n.split("/")[1] for n in names if n.count("/") == 2))
    people += [n.split("/")[1] for n in names if n.startswith("direction/")]
    places = {person: i for i, person in enumerate(dict.fromkeys(people))}

    def order(name: str) -> tuple[int, int, str]:
        parts = name.split("/")
        whose = places.get(parts[1], len(places)) if len(parts) > 1 else -1
        kinds = ("direction", "finetuned", "broad")
        return whose, kinds.index(parts[0]) if parts[0] in kinds else len(kinds), name

    return plain_names if len(plain_names) == len(names) else sorted(names, key=order)


def _title(name: str) -> str:
    """`finetuned/virtue/0` → `Virtue, narrow 0`; `direction/virtue` → `Virtue, before`."""
    kind, *rest = name.split("/")
    if not rest:
        return label(name)
    if kind == "direction":
        return f"{label(rest[0])}, before"
    scope = {"finetuned": "narrow", "broad": "broad"}.get(kind)
    if scope and len(rest) > 1:
        return f"{label(rest[0])}, {scope} {label(rest[1])}"
    control = CONTROLS.get(kind, kind.replace("-", "_"))
    return f"{label(kind_of(control).words)} {label(' '.join(rest))}"


def _subtitle(rows: Rows) -> str:
    sites = sorted({str(row["site"]) for row in rows if row.get("site") is not None})
    sizes = sample_sizes((estimate(row.get("cosine")) for row in rows), "prompts")
    parts = [f"layer {', '.join(sites)}" if sites else "", sizes]
    lines = [", ".join(part for part in parts if part)]
    for role, words in ROLES.items():
        found = [estimate(row["cosine"]).value for row in rows if row.get("role") == role]
        if found:
            span = f"{plain(min(found))} to {plain(max(found))}"
            lines.append(f"{words}: {span}, {len(found)} pairs")
    nulls = [number_in(row.get("null_95")) for row in rows]
    if known := [null for null in nulls if null == null]:
        middle = plain(float(np.median(known)))
        lines.append(f"swapped at random: 95 % below {middle} (median pair)")
    return "<br>".join(line for line in lines if line)
