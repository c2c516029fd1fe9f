"""Write the report: one HTML file that needs nothing but a browser."""

import base64
import gzip
import hashlib
import os
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from persona_probe.errors import RequestError
from persona_probe.files import write_text
from persona_probe.report.cited import cited_rows
from persona_probe.report.markup import Markup, element, paragraph
from persona_probe.report.opening import opening, opening_of_training
from persona_probe.report.palette import persona_colours
from persona_probe.report.run_folder import PROJECTION, Run, read_run
from persona_probe.report.sections import SECTIONS, Section
from persona_probe.report.sections.comparison import comparison
from persona_probe.report.sections.training import TITLE, training

AGAINST = "against:"  # before the places of the other run's rows
DATA = files("persona_probe.report") / "data"


def write_report(run_folder: Path, out: Path | None = None, against: Path | None = None) -> Path:
    """Read a run folder and write its report.

    The page fetches nothing: styles, scripts and data are inside it, and its content policy
    forbids the rest. The same run gives the same bytes in the same place. Stages that were not run
    are reported as not measured. The folder of a finetuning that was watched gives a page of what
    its projection.jsonl says. Links to the files of the run are relative: a page that is moved
    keeps its rows and loses those.

    Args:
        run_folder: what `persona-probe study run` wrote.
        out: file to write, or a folder to write into; by default the run folder, and
            `report.html`, or `report-against-OTHER.html` of a comparison.
        against: another run folder to compare with.

    Returns:
        The file written.

    Raises:
        RequestError: there is no such folder, or it holds none of a run's files.
    """
    run = read_run(run_folder)
    other = None if against is None else read_run(against, AGAINST)
    for folder, each in ((run_folder, run), (against, other)):
        if against is not None and each is not None and not each.is_study:
            raise RequestError(f"{folder} holds no study's results, so there is nothing to compare")
    target = out or run_folder
    if target.is_dir():
        name = "report" if against is None else f"report-against-{against.resolve().name}"
        target = target / f"{name}.html"
    run = replace(run, base=_between(target, run_folder))
    if other is not None and against is not None:
        other = replace(other, base=_between(target, against))
    return write_text(target, render(run, other))


def _between(page: Path, folder: Path) -> str:
    """The relative link from a page to a folder; empty when the page lies in it."""
    path = Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()
    return "" if path == "." else f"{path}/"


def render(run: Run, other: Run | None = None) -> str:
    """The page as text, with a section on how it differs from the other run if there is one."""
    colours = persona_colours([*run.personas, *(other.personas if other else ())])
    scripts = [_plotly_js(), (DATA / "page.js").read_text(encoding="utf-8")]
    chosen = _chosen(run)
    top = opening(run, colours) if run.is_study else opening_of_training(run)
    sections = [_section(name, *each, run, colours) for name, each in chosen.items()]
    runs = [run]
    if other is not None:
        runs.append(other)
        heading = element("h2", f"Against {other.name}")
        told = comparison(run, other, colours)
        sections.insert(1, element("section", heading, told, id="against"))
    body = [
        top,
        _contents(chosen, other),
        element("main", sections, cited_rows([top, *sections], runs)),
        _foot(run),
        [element("script", Markup(script)) for script in scripts],
    ]
    title = f"{run.name}: persona_probe report"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup((DATA / "page.css").read_text(encoding="utf-8"))),
    ]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _chosen(run: Run) -> dict[str, tuple[str, Section]]:
    """All sections of a study; that on training only where a finetuning was watched."""
    watched: dict[str, tuple[str, Section]] = {"training": (TITLE, training)}
    if not run.is_study:
        return watched
    if PROJECTION not in run.documents and PROJECTION not in run.absent:
        return SECTIONS
    last = "methods"
    before = {name: each for name, each in SECTIONS.items() if name != last}
    return before | watched | {last: SECTIONS[last]}


def _contents(chosen: dict[str, tuple[str, Section]], other: Run | None) -> Markup:
    titles = {name: title for name, (title, _) in chosen.items()} | {"rows": "The rows"}
    if other is not None:
        titles = {"against": f"Against {other.name}"} | titles
    links = [element("li", element("a", t, href=f"#{name}")) for name, t in titles.items()]
    return element("nav", element("ol", links), aria_label="Contents")


def _section(name: str, title: str, body: Section, run: Run, colours: dict[str, str]) -> Markup:
    return element("section", element("h2", title), body(run, colours), id=name)


def _foot(run: Run) -> Markup:
    libraries = run.study.get("versions")
    version = libraries.get("persona-probe") if isinstance(libraries, dict) else None
    made = f"Made by persona_probe{f' {version}' if version else ''} from the run “{run.name}”."
    licence = "Figures drawn by plotly.js, MIT licence, © Plotly, Inc."
    noscript = element("noscript", paragraph("Figures need JavaScript; the tables do not."))
    return element("footer", paragraph(made, " ", licence), noscript)


def _plotly_js() -> str:
    return gzip.decompress((DATA / "plotly-cartesian.min.js.gz").read_bytes()).decode("utf-8")


def _policy(scripts: list[str]) -> str:
    """Nothing from anywhere, and no script but those of this page, known by their hashes."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode('ascii')}'" for d in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
