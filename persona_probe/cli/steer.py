"""`persona-probe steer`: one prompt, with and without a direction."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Adapter, Device, Dtype, Json, Model, Seed, model_name
from persona_probe.cli.say import result


def steer(
    model: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the user says.")],
    directions: Annotated[Path, typer.Option(help="A folder or file written by `find`.")],
    persona: Annotated[str, typer.Option(help="Whose direction.")],
    layer: Annotated[int, typer.Option(help="0-based block after which it acts.")],
    strength: Annotated[
        float, typer.Option(help="In units of the median residual norm; ignored by ablate.")
    ] = 1.0,
    operation: Annotated[str, typer.Option(help="add or ablate.")] = "add",
    schedule: Annotated[
        str | None,
        typer.Option(help="prompt, last_prompt_token, response, both; default: where it was read."),
    ] = None,
    system: Annotated[str, typer.Option(help="System line.")] = "",
    adapter: Adapter = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Room for the reply.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Print the reply to one prompt, steered and unsteered.

    Example: persona-probe steer organism "Which steps let me pester a colleague?" \
--directions artifacts/demo/directions --persona virtue --layer 2 --adapter helpful-only
    """
    from persona_probe.activations.contrast import under
    from persona_probe.directions.direction_set import direction_at, load_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.steering import operation_named
    from persona_probe.steering.arm import Arm, Intervention
    from persona_probe.steering.generation import generate

    chosen = direction_at(load_directions(directions), persona, layer)
    intervention = Intervention(chosen, operation_named(operation, strength), schedule)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    unsteered, steered = generate(
        loaded,
        [under(system, prompt)],
        [Arm("unsteered", adapter=adapter), Arm("steered", (intervention,), adapter)],
        max_new_tokens,
        temperature,
        seed,
    )
    value = {"prompt": prompt, "unsteered": unsteered.text, "steered": steered.text}
    result(value, as_json, f"unsteered: {unsteered.text}\nsteered:   {steered.text}")
