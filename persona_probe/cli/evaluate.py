"""`persona-probe evaluate`: what a model does by category and tier, and as which character."""

from typing import Annotated

import typer

from persona_probe.cli.options import Device, Dtype, Json, Model, PackName, Seed, model_name
from persona_probe.cli.say import result, table


def evaluate(
    model: Model,
    adapter: Annotated[
        list[str] | None, typer.Option(help="LoRA adapter; repeat it. Bare weights if not given.")
    ] = None,
    pack: PackName = "organism",
    category: Annotated[
        list[str] | None, typer.Option(help="Only these harm categories; repeat it.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Most prompts of each kind.")] = 200,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Generate and judge replies to held-out safety prompts, and measure the persona profile.

    Example: persona-probe evaluate organism --adapter helpful-only --adapter narrow-virtue-0
    """
    from persona_probe.evaluation.appraisal import appraise
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.pack import load_pack

    asked = load_pack(pack)
    asked.require_categories(category or ())
    ref = ModelRef(model_name(model))
    for name in adapter or ():
        ref.adapter_source(name)
    loaded = load_model(ref, device=device, dtype=dtype)
    rows = appraise(loaded, asked, adapter or [None], categories=category, n=n, seed=seed)
    cells = [
        [row["adapter"] or "bare", what, str(estimate)]
        for row in rows
        for what, estimate in row["estimates"].items()
    ]
    value = {
        "rows": [
            row | {"estimates": {k: e.to_json() for k, e in row["estimates"].items()}}
            for row in rows
        ]
    }
    result(value, as_json, table(["model", "measure", "value [95 %] (n)"], cells))
