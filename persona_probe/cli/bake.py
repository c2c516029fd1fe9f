"""`persona-probe bake`: a steered model as a plain model folder."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Adapter, Directions, Json, Layer, Model, model_name
from persona_probe.cli.say import result


def bake(
    model: Model,
    directions: Directions,
    persona: Annotated[str, typer.Option(help="Whose direction.")],
    layer: Layer,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
    operation: Annotated[
        str, typer.Option(help="add (a bias), or ablate (out of all weights that write it).")
    ] = "add",
    strength: Annotated[
        float, typer.Option(help="In units of the median residual norm; ignored by ablate.")
    ] = 1.0,
    schedule: Annotated[
        str, typer.Option(help="Only both: weights act at every position.")
    ] = "both",
    adapter: Adapter = None,
    device: Annotated[str, typer.Option(help="Where the result is compared with hooks.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Write a steered model that plain transformers loads, without hooks and without this package.

    The folder is loaded again and compared with the hooks before it is kept. An adapter is merged
    into the weights.

    Example: persona-probe bake organism --directions artifacts/demo/directions \
--persona virtue --layer 2 --operation add --strength 0.4 --adapter helpful-only --out steered
    """
    from persona_probe.directions.direction_set import direction_at, load_directions
    from persona_probe.models.ref import ModelRef
    from persona_probe.steering import operation_named
    from persona_probe.steering.baking import bake as bake_model

    chosen = direction_at(load_directions(directions), persona, layer)
    done = bake_model(
        ModelRef(model_name(model)),
        chosen,
        operation_named(operation, strength),
        out,
        adapter,
        schedule,
        device,
    )
    said = "largest |h·v| / |h| left" if operation.startswith("ablate") else "off by at most"
    text = (
        f"{operation} {persona} at layer {layer}: {done.how}\n"
        f"{said} {done.difference:.2g}, effect on logits {done.effect:.2g} (of the largest logit)\n"
        f"-> {done.folder}"
    )
    result(done.to_json(), as_json, text)
