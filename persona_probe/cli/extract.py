"""`persona-probe extract`: prompts through a model, the residual stream out of it."""

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Device, Dtype, Json, Model, model_name
from persona_probe.cli.say import result

PROMPTS_HELP = (
    "A .jsonl file of messages, a text file with one prompt per line, a pack's name (its personas "
    "against neutral), or PACK:safety."
)


def extract(
    model: Model,
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help=PROMPTS_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for the activations.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="LoRA adapter; repeat it. Bare weights are always read too."),
    ] = None,
    without_bare: Annotated[
        bool, typer.Option("--without-bare", help="Read with the adapters only.")
    ] = False,
    sites: Annotated[
        str, typer.Option(help="all, 7, 4,8,12, 4-8 or 0.2-0.8 of the depth.")
    ] = "all",
    positions: Annotated[
        str, typer.Option(help="last_prompt_token, response_mean, prompt_mean; commas between.")
    ] = "last_prompt_token",
    device: Device = "auto",
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Extract activations, before and after finetuning, over the same token ids.

    Writes OUT/ADAPTER/POSITION for every adapter, and OUT/bare/POSITION for the bare weights.

    Example: persona-probe extract organism organism --out artifacts/acts --adapter helpful-only
    """
    from persona_probe.activations.capture import capture_adapters
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.errors import RequestError
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.site import parse_sites

    conversations = read_prompts(prompts)
    adapters: list[str | None] = [*([] if without_bare else [None]), *(adapter or [])]
    if not adapters:
        raise RequestError("--without-bare leaves nothing to read: name an --adapter")
    ref = ModelRef(model_name(model))
    for name in adapter or []:
        ref.adapter_source(name)
    loaded = load_model(ref, device=device, dtype=dtype)
    found = capture_adapters(
        loaded,
        conversations,
        parse_sites(sites, loaded.n_layers),
        [position.strip() for position in positions.split(",")],
        adapters,
    )
    folders = [
        activations.save(out / Path(name or "bare").name / position).parent
        for name, by_position in found.items()
        for position, activations in by_position.items()
    ]
    written = [str(folder) for folder in folders]
    value = {"folders": written, "n": len(conversations)}
    result(value, as_json, f"{len(conversations)} conversations -> {', '.join(written)}")
