"""`persona-probe sweep`: every site and strength of a direction, in one batch."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import (
    Adapter,
    Device,
    Dtype,
    Json,
    Model,
    PackName,
    Seed,
    model_name,
)
from persona_probe.cli.say import result, table


def sweep(
    model: Model,
    directions: Annotated[Path, typer.Option(help="A folder or file written by `find`.")],
    persona: Annotated[
        list[str] | None, typer.Option(help="Whose directions; repeat it. All if not given.")
    ] = None,
    sites: Annotated[str, typer.Option(help="all, 7, 4,8,12, 4-8 or 0.2-0.8.")] = "0.2-0.8",
    strengths: Annotated[
        str, typer.Option(help="In units of the median residual norm; commas between.")
    ] = "0,0.1,0.2,0.35,0.5,0.75,1,1.5",
    adapter: Adapter = None,
    pack: PackName = "organism",
    n: Annotated[int, typer.Option(min=1, help="Prompts of each kind, from the select part.")] = 60,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Measure refusal probability over sites and strengths, on the prompts kept for selection.

    Example: persona-probe sweep organism --directions artifacts/demo/directions \
--adapter helpful-only
    """
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.evaluation.sweep import sweep_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import parse_sites
    from persona_probe.personas.pack import load_pack

    asked = load_pack(pack)
    amounts = _numbers(strengths)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    rows = sweep_directions(
        loaded,
        asked,
        load_directions(directions, loaded),
        parse_sites(sites, loaded.n_layers),
        amounts,
        personas=persona,
        adapter=adapter,
        n=n,
        seed=seed,
    )
    cells = [
        [
            row["persona"],
            str(row["layer"]),
            f"{row['strength']:g}",
            f"{row['refusal_probability']:.3f}",
            f"{row['over_refusal_probability']:.3f}",
        ]
        for row in rows
    ]
    heads = ["direction", "layer", "strength", "refusal, harmful", "refusal, permitted"]
    result({"rows": rows}, as_json, table(heads, cells))


def _numbers(text: str) -> list[float]:
    from persona_probe.errors import RequestError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--strengths {text!r}: write numbers with commas, 0.5,1,2") from None
