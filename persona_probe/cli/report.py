"""`persona-probe report`: a run folder as one page."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json
from persona_probe.cli.say import result


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A folder of `study run`, or of `finetune … --watch`."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write, or a folder; RUN if not given.")
    ] = (None),
    against: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="Another run, to compare this one with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the self-contained HTML report of a run, and how it differs from another one.

    The folder of a finetuning that was watched gives a page of how it moved while training.

    Example: persona-probe report artifacts/demo --against artifacts/second
    """
    from persona_probe.report.page import write_report

    page = write_report(run, out, against)
    result({"report": str(page)}, as_json, str(page))
