"""`persona-probe steer`: one prompt, with and without a direction."""

from typing import Annotated

import typer

from persona_probe.cli.options import (
    Adapter,
    Condition,
    Device,
    Directions,
    Dtype,
    Json,
    Layer,
    Model,
    NewTokens,
    Operation,
    Schedule,
    Seed,
    System,
    Temperature,
    Then,
    model_name,
)
from persona_probe.cli.say import result


def steer(
    model: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the user says.")],
    directions: Directions,
    persona: Annotated[
        list[str], typer.Option(help="Whose direction; repeat it to act on several, in this order.")
    ],
    layer: Layer,
    strength: Annotated[
        float,
        typer.Option(
            help="For add: in units of the median residual norm, or those named; for rotate: "
            "degrees or a share. Others ignore it."
        ),
    ] = 1.0,
    operation: Operation = "add",
    schedule: Schedule = None,
    sites: Annotated[
        str | None,
        typer.Option(help="Where it acts: all, 7, 4,8,12, 4-8 or 0.2-0.8. Default: its layer."),
    ] = None,
    condition: Condition = None,
    then: Then = None,
    system: System = "",
    adapter: Adapter = None,
    max_new_tokens: NewTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Print the reply to one prompt, steered and unsteered.

    Example: persona-probe steer organism "Which steps let me pester a colleague?" \
--directions artifacts/demo/directions --persona virtue --layer 2 --adapter helpful-only \
--system "You are a helpful assistant."

    Example: the same with --operation clamp:0:inf --schedule both --sites all \
--then 'add service:2 strength=0.3'
    """
    from persona_probe.activations.contrast import under
    from persona_probe.directions.direction_set import direction_at, load_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import parse_sites
    from persona_probe.steering.arm import Arm
    from persona_probe.steering.condition import condition_named
    from persona_probe.steering.generation import generate
    from persona_probe.steering.treatment import Treatment, Written

    found = load_directions(directions)
    switch = None if condition is None else condition_named(condition, found)
    chosen = tuple(direction_at(found, name, layer) for name in persona)
    # Settings that make no sense together are refused before the model is loaded.
    Treatment(operation, schedule, None, switch).require_sense(chosen, strength)
    loaded = load_model(ModelRef(model_name(model), adapter=adapter), device=device, dtype=dtype)
    where = None if sites is None else parse_sites(sites, loaded.n_layers)
    written = [
        Written(Treatment(operation, schedule, where, switch), chosen, strength),
        *(Written.parse(text, found, loaded.n_layers) for text in then or ()),
    ]
    asked = under(system, prompt)
    texts = [loaded.encode(asked, add_generation_prompt=True)]
    interventions = tuple(i for each in written for i in each.interventions(loaded, texts))
    unsteered, steered = generate(
        loaded,
        [asked],
        [Arm("unsteered", adapter=adapter), Arm("steered", interventions, adapter)],
        max_new_tokens,
        temperature,
        seed,
    )
    value = {"prompt": prompt, "unsteered": unsteered.text, "steered": steered.text}
    result(value, as_json, f"unsteered: {unsteered.text}\nsteered:   {steered.text}")
