"""`persona-probe export`: directions to other people's files."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import MODEL_HELP, Json, model_name
from persona_probe.cli.say import note, result

FORMATS_HELP = (
    "gguf (llama.cpp, repeng, saklas), easysteer, persona_vectors, assistant_axis, "
    "assistant_axis_capping, steering_vectors, lm_eval, axbench, trait_interp or probity."
)


def export(
    directions: Annotated[
        Path, typer.Argument(metavar="DIRECTIONS", help="A folder or file written by `find`.")
    ],
    format_name: Annotated[str, typer.Option("--format", help=FORMATS_HELP)],
    persona: Annotated[str, typer.Option(help="Whose directions.")],
    out: Annotated[Path, typer.Option(help="The file, or for trait_interp a new folder.")],
    layer: Annotated[int | None, typer.Option(help="0-based block after which it acts.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Several at once: all, 1,2 or 4-8; added at every one.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How much is added; it is baked into the vectors.")
    ] = 1.0,
    unit: Annotated[
        str,
        typer.Option(help="gaps (between the class means), norms (median residual norm) or raw."),
    ] = "gaps",
    model: Annotated[
        str | None,
        typer.Option(help=f"{MODEL_HELP} Tells the number of layers and the architecture."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one persona's directions as another tool's steering vectors.

    Most tools add a vector at every position. One that was read at the last prompt token is as long
    as the residual there, and at every reply token it may destroy the text: choose its strength by
    trying.

    Example: persona-probe export artifacts/directions --format gguf --persona virtue \
--layer 2 --strength 1 --unit gaps --model organism --out virtue.gguf
    """
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.interchange.additions import units_named
    from persona_probe.interchange.exporting import at_layers, export_directions
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    units = units_named(unit)
    chosen = at_layers(load_directions(directions), persona, layer, layers)
    shape = None if model is None else shape_of(ModelRef(model_name(model)))
    written = export_directions(chosen, format_name, out, strength, units, shape)
    sites = sorted(site.layer for site in chosen)
    value = {
        "format": format_name,
        "persona": persona,
        "layers": sites,
        "strength": strength,
        "unit": unit,
        "files": [str(path) for path in written],
    }
    listed = ", ".join(map(str, sites))
    files = "\n".join(map(str, written))
    if any(direction.position == "last_prompt_token" for direction in chosen.values()):
        note(
            "read at the last prompt token; most tools add at every position, so try less strength"
        )
    result(value, as_json, f"{persona} at layer {listed}, {strength:g} {unit} ->\n{files}")
