"""The rows behind the numbers: every row that the page points to, as its file has it."""

import json
import re
from collections.abc import Iterable

from persona_probe.report.anchors import bare
from persona_probe.report.markup import Markup, element, join, paragraph
from persona_probe.report.run_folder import Run

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
            "Every number above is a link to its row here, which stands as it is in the file of "
            "the run; clicking on a point of a figure leads to its row as well. Rows that this "
            "page does not show are in the files only."
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
    return element("code", json.dumps(row, ensure_ascii=False, default=str))


def _file(place: str, mark: str) -> str:
    return place.removeprefix(mark).partition("-")[0]


def _order(place: str) -> tuple[str, int]:
    stem, _, number = place.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (place, 0)
