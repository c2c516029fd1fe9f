"""`persona-probe find`: activations to directions."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Json, Seed
from persona_probe.cli.say import result, table

TABLE = "found.json"


def find(
    activations: Annotated[
        Path, typer.Argument(metavar="ACTIVATIONS", help="A folder written by `extract`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the directions.")],
    finder: Annotated[
        str,
        typer.Option(
            help="mean_difference, linear_probe, whitened_difference, shrinkage_lda or "
            "principal_component."
        ),
    ] = "mean_difference",
    negative: Annotated[str, typer.Option(help="Label of the class to point away from.")] = (
        "neutral"
    ),
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Label to point to; repeat it. Every other label if not given."),
    ] = None,
    c: Annotated[
        str | None,
        typer.Option(
            help="Inverse strength of the probe's penalty, 1 if not given; `auto` chooses it on "
            "prompt families left out."
        ),
    ] = None,
    orthogonal_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER:PERSONA",
            help="A direction to take out first, such as refusal; repeat it.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find one direction per label and site, on half of the prompt families.

    The other families stay untouched for selection and for `validate`. Where `extract` kept moments
    only, mean_difference, whitened_difference and shrinkage_lda are found from those. The table is
    also written to found.json in the folder.

    Example: persona-probe find artifacts/acts/bare/last_prompt_token --out artifacts/directions
    """
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.directions.finders.orthogonalised import Orthogonalised, read_nuisances
    from persona_probe.directions.found_table import rows_of
    from persona_probe.directions.from_moments import find_per_label_in, opened
    from persona_probe.files import write_json

    source = opened(activations)
    chosen = finder_named(finder) if c is None else finder_named(finder, c=_strength(c))
    if orthogonal_to:
        chosen = Orthogonalised(chosen, read_nuisances(orthogonal_to))
    plain = finder_named("mean_difference")
    directions, differences = (
        find_per_label_in(source, each, negative, positive, seed) for each in (chosen, plain)
    )
    save_directions(directions, out)
    rows = rows_of(directions, differences)
    write_json(out / TABLE, rows)
    shown = [
        [
            row["persona"],
            str(row["layer"]),
            f"{row['gap']:.3f}",
            f"{row['gap_in_norms']:.3f}",
            f"{row['cosine_to_mean_difference']:.3f}",
        ]
        for row in rows
    ]
    columns = ["direction", "layer", "gap", "gap / residual norm", "cosine to mean difference"]
    value = {"out": str(out), "finder": chosen.label, "directions": rows}
    result(value, as_json, f"{table(columns, shown)}\n-> {out}")


def _strength(told: str) -> float | None:
    """`--c` as the probe takes it."""
    from persona_probe.errors import RequestError

    if told == "auto":
        return None
    try:
        strength = float(told)
    except ValueError:
        strength = 0.0
    if not 0 < strength < float("inf"):
        raise RequestError(f"--c {told!r} is neither a positive number nor auto")
    return strength
