"""`persona-probe import`: other people's files to directions."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import MODEL_HELP, Json, model_name
from persona_probe.cli.say import result, table

FORMATS_HELP = (
    "gguf (llama.cpp, repeng, saklas), easysteer, persona_vectors, assistant_axis, "
    "assistant_axis_roles, assistant_axis_capping, steering_vectors, refusal_direction, caa, "
    "lm_eval, axbench, trait_interp, probity, or persona_probe (our own steering vectors)."
)


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file; a folder for trait_interp and caa.")
    ],
    format_name: Annotated[str, typer.Option("--format", help=FORMATS_HELP)],
    persona: Annotated[str, typer.Option(help="Whose directions they are.")],
    out: Annotated[Path, typer.Option(help="Folder for the directions.")],
    model: Annotated[
        str | None, typer.Option(help=f"{MODEL_HELP} The vectors must fit its depth and width.")
    ] = None,
    family: Annotated[
        str, typer.Option(help="Which contrast: prompt_in_H, resp_in_H, behav_in_F, model_diff.")
    ] = "unknown",
    position: Annotated[
        str | None,
        typer.Option(help="Where they were read, such as response_mean; else as the file says."),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="The layer, for formats that do not name it.")
    ] = None,
    pick: Annotated[
        str | None,
        typer.Option(help="Which of several: a concept's row, a token position, an experiment."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read another tool's steering vectors as directions; nothing in the file is ever run.

    Example: persona-probe import virtue.gguf --format gguf --persona virtue --model organism \
--out artifacts/imported
    """
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.families.family import require_family
    from persona_probe.interchange.format import Asked
    from persona_probe.interchange.importing import import_directions
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    if family != "unknown":
        require_family(family)
    shape = None if model is None else shape_of(ModelRef(model_name(model)))
    asked = Asked(persona, family, position, layer, pick, shape)
    directions = import_directions(file, format_name, asked)
    save_directions(directions, out)
    found = [direction for by_site in directions.values() for direction in by_site.values()]
    rows = [[one.persona, str(one.site.layer), f"{one.gap:.4g}", one.position] for one in found]
    value = {
        "out": str(out),
        "directions": [
            {"persona": one.persona, "layer": one.site.layer, "gap": one.gap} for one in found
        ],
    }
    text = table(["direction", "layer", "gap", "read at"], rows)
    result(value, as_json, f"{text}\n-> {out}")
