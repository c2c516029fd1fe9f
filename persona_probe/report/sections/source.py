"""Where a section's numbers come from, and what it says when there are none."""

from persona_probe.report.markup import Markup, element, join, paragraph
from persona_probe.report.run_folder import Run


def absences(run: Run, *names: str) -> Markup | None:
    """One quiet line per file that is missing or broken; none when all were read."""
    lines = [run.absent[name] for name in names if name in run.absent]
    if not lines:
        return None
    return join(paragraph("Not measured: ", line, ".", class_="absent") for line in lines)


def source(run: Run, *names: str) -> Markup:
    """The files behind a figure, as links."""
    files = join([run.link(name) for name in names if name in run.documents], ", ")
    return element("span", " Rows: ", files, ".", class_="source")


def swatch(colour: str) -> Markup:
    """The persona's colour as a dot beside its name."""
    return element("span", class_="chip", style=f"--tone:{colour}")
