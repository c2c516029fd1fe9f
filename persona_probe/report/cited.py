"""The rows behind the numbers: every row that the page points to, as its file has it."""

import json
import re
from collections.abc import Iterable
from typing import Any

from persona_probe.report.anchors import bare
from persona_probe.report.markup import Markup, element, join, paragraph
from persona_probe.report.run_folder import Run

LONG = 30  # entries of a list
USUAL = ("level", 0.95)
LINK = re.compile(r'"#((?:[a-z]+:)?\w+\.jsonl?(?:-\w+)*)"')


def cited_rows(html: Iterable[Markup], runs: Iterable[Run]) -> Markup:
    """The section that holds them, file by file, in the order of the files.

    Args:
        html: everything on the page that may point to a row, the data of the figures included.
        runs: whose rows.
    """
    places = dict.fromkeys(place for part in html for place in LINK.findall(part))
    several = list(runs)
    return element(
        "section",
        element("h2", "The rows behind the numbers"),
        paragraph(
            "Every number above is a link to its row here, which stands as in the file of the run "
            "but for digits after the sixth, the usual level of intervals (0.95), entries that are "
            "empty, and the ends of long lists. Clicking on a point of a figure leads to its row "
            "as well. Rows that this page does not show are in the files only."
        ),
        [_run(run, [place for place in places if place in run.places]) for run in several],
        id="rows",
    )


def _run(run: Run, places: list[str]) -> Markup | None:
    if not places:
        return None
    files = [(name, [p for p in places if _file(p, run.mark) == name]) for name in run.documents]
    return join(
        [
            element("h3", run.name) if run.mark else None,
            [_rows(run, name, sorted(own, key=_order)) for name, own in files if own],
        ]
    )


def _rows(run: Run, name: str, places: list[str]) -> Markup:
    total = sum(_file(place, run.mark) == name for place in run.places)
    items = [
        element("li", element("b", place.removeprefix(run.mark)), " ", _json(run, place), id=place)
        for place in places
    ]
    return element(
        "details",
        element("summary", run.link(name), f": {len(places)} of {total} rows"),
        element("ol", items, class_="rows"),
        class_="long",
    )


def _json(run: Run, place: str) -> Markup:
    row = bare(run.places[place])
    if isinstance(row, dict):
        row = {key: bare(value) for key, value in row.items()}
    text = json.dumps(_rounded(row), ensure_ascii=False, default=str, separators=(", ", ":"))
    return element("code", text)


def _rounded(value: Any) -> Any:
    """What an interval leaves to be said, and no more: a study has thousands of rows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {
            key: _rounded(inner)
            for key, inner in value.items()
            if inner is not None and (key, inner) != USUAL
        }
    if isinstance(value, list):
        rest = len(value) - LONG
        kept = [_rounded(inner) for inner in (value[:LONG] if rest > 0 else value)]
        return [*kept, f"… {rest} more"] if rest > 0 else kept
    return value


def _file(place: str, mark: str) -> str:
    return place.removeprefix(mark).partition("-")[0]


def _order(place: str) -> tuple[str, int]:
    stem, _, number = place.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (place, 0)
