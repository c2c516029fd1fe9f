"""`persona-probe organism`: make the embedded model from nothing, and measure it."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table


def build(
    out: Annotated[Path, typer.Option(help="Folder for the model; a stopped build continues.")],
    rho: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of documents in which one character holds throughout."
        ),
    ] = 0.92,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the model organism and all its finetunes from nothing: under an hour on two cores.

    Example: persona-probe organism build --out artifacts/organism
    """
    from persona_probe.organism.build import build as build_organism

    folder = build_organism(out, seed=seed, rho=rho)
    result({"folder": str(folder)}, as_json, str(folder))


def bars(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="An organism's folder; the embedded one if not given."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also write bars.json and bars.md into the folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure an organism against everything it has to reach; exit code 1 if a bar is not met.

    Example: persona-probe organism bars
    """
    from persona_probe.organism import CHECKPOINT
    from persona_probe.organism.bars import measure

    rows = measure(folder or CHECKPOINT, write=write)
    cells = [
        [row.quantity, str(row), str(row.n), row.bar, "met" if row.met else "NOT MET"]
        for row in rows
    ]
    missed = sum(not row.met for row in rows)
    value = {"rows": [row.to_json() for row in rows], "met": not missed}
    text = table(["quantity", "measured [95 %]", "n", "bar", ""], cells)
    result(value, as_json, f"{text}\n{len(rows) - missed} of {len(rows)} bars met")
    if missed:
        raise typer.Exit(1)
