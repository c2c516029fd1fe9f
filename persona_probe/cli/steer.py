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
    persona: Annotated[
        list[str], typer.Option(help="Whose direction; repeat it to act on several, in this order.")
    ],
    layer: Annotated[int, typer.Option(help="0-based block after which it acts.")],
    strength: Annotated[
        float,
        typer.Option(
            help="For add: in units of the median residual norm, or those named; for rotate: "
            "degrees or a share. Others ignore it."
        ),
    ] = 1.0,
    operation: Annotated[
        str,
        typer.Option(
            help="add[:norm|gap|raw], ablate[:LEVEL], clamp:LOW:HIGH[:raw|gap], "
            "rotate[:degrees|share] or subspace[:SCALE], which takes all personas together."
        ),
    ] = "add",
    schedule: Annotated[
        str | None,
        typer.Option(
            help="prompt, last_prompt_token, response, both; of the response first:K, from:K, "
            "linear:K, exponential:H, or of a span both/first:K. Default: where it was read."
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(help="Where it acts: all, 7, 4,8,12, 4-8 or 0.2-0.8. Default: its layer."),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Only if the prompt projects above a threshold: "
            "PERSONA:LAYER:THRESHOLD[:last_prompt_token|prompt_mean][:gap|raw]."
        ),
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

    Example: the same with --operation clamp:0:inf --schedule both --sites all
    """
    from persona_probe.activations.contrast import under
    from persona_probe.directions.direction_set import direction_at, load_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import parse_sites
    from persona_probe.steering import interventions_along, operation_named
    from persona_probe.steering.arm import Arm
    from persona_probe.steering.condition import condition_named
    from persona_probe.steering.generation import generate

    found = load_directions(directions)
    acting = operation_named(operation, strength)
    chosen = [direction_at(found, name, layer) for name in persona]
    switch = None if condition is None else condition_named(condition, found)
    # Settings that make no sense together are refused before the model is loaded.
    interventions_along(chosen, acting, schedule)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    where = None if sites is None else parse_sites(sites, loaded.n_layers)
    interventions = interventions_along(chosen, acting, schedule, where, switch)
    unsteered, steered = generate(
        loaded,
        [under(system, prompt)],
        [Arm("unsteered", adapter=adapter), Arm("steered", interventions, adapter)],
        max_new_tokens,
        temperature,
        seed,
    )
    value = {"prompt": prompt, "unsteered": unsteered.text, "steered": steered.text}
    result(value, as_json, f"unsteered: {unsteered.text}\nsteered:   {steered.text}")
