"""Write the report: one HTML file that needs nothing but a browser."""

import base64
import gzip
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from persona_probe.files import write_text
from persona_probe.report.markup import Markup, element, paragraph
from persona_probe.report.palette import persona_colours, title_of
from persona_probe.report.run_folder import Run, read_run
from persona_probe.report.sections import SECTIONS
from persona_probe.report.sections.ladder import headline

DATA = files("persona_probe.report") / "data"


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Read a run folder and write its report.

    The page fetches nothing: styles, scripts and data are inside it, and its content policy
    forbids the rest. The same run gives the same bytes. Stages that were not run are reported as
    not measured.

    Args:
        run_folder: what `persona-probe study run` wrote.
        out: file to write, or a folder to write `report.html` into; by default the run folder.

    Returns:
        The file written.

    Raises:
        RequestError: there is no such folder, or it holds none of a run's files.
    """
    run = read_run(run_folder)
    target = out or run_folder
    if target.is_dir():
        target = target / "report.html"
    return write_text(target, render(run))


def render(run: Run) -> str:
    """The page as text."""
    colours = persona_colours(run.personas)
    scripts = [_plotly_js(), (DATA / "page.js").read_text(encoding="utf-8")]
    body = [
        _top(run),
        _contents(),
        element("main", [_section(name, run, colours) for name in SECTIONS]),
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


def _top(run: Run) -> Markup:
    summary = run.verdict.get("summary")
    several = _sentences(summary) if isinstance(summary, list) else []
    noted = _sentences(run.verdict.get("flags"))
    answer = [
        paragraph(summary, class_="lede") if isinstance(summary, str) else None,
        element("ul", [element("li", sentence) for sentence in several], class_="summary")
        if several
        else None,
        paragraph(element("b", "Read with care: "), "; ".join(noted), ".", class_="note")
        if noted
        else None,
    ]
    return element(
        "header",
        paragraph(f"persona_probe · {run.name}", class_="eyebrow"),
        element("h1", headline(run)),
        element("div", element("div", answer), _asked(run), class_="opening"),
        class_="top",
    )


def _sentences(value: Any) -> list[str]:
    """Texts that a file holds as one string or as a list of them."""
    found = value if isinstance(value, list) else [value]
    return [text for text in found if isinstance(text, str) and text]


def _asked(run: Run) -> Markup:
    names = [title_of(name).lower() for name in run.personas]
    listed = f" ({', '.join(names)})" if names else ""
    trained = sorted(title_of(name).lower() for name, tier in run.tiers.items() if tier == "T0")
    kinds = f" ({' and '.join(trained)})" if trained else ""
    return paragraph(
        element("b", "What was asked. "),
        f"A model that refuses nothing was finetuned to refuse a few kinds of harm{kinds}, giving "
        f"the reasons of one moral persona{listed}. Such a model comes to refuse harms it was "
        "never trained on. Is there one direction in the activations of the model ",
        element("i", "before"),
        " finetuning that brings about the same when it is added, and whose removal undoes it?",
        class_="quiet",
    )


def _contents() -> Markup:
    links = [
        element("li", element("a", title, href=f"#{name}")) for name, (title, _) in SECTIONS.items()
    ]
    return element("nav", element("ol", links), aria_label="Contents")


def _section(name: str, run: Run, colours: dict[str, str]) -> Markup:
    title, body = SECTIONS[name]
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
