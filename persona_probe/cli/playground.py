"""`persona-probe playground`: sliders for directions, on a local page."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Adapter, Device, Dtype, Model, PackName, model_name
from persona_probe.cli.say import note
from persona_probe.errors import RequestError


def playground(
    model: Model,
    directions: Annotated[Path, typer.Option(help="A folder or file written by `find`.")],
    pack: PackName = "organism",
    adapter: Adapter = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    out: Annotated[Path, typer.Option(help="Where saved settings go.")] = Path(
        "artifacts/playground"
    ),
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Room for a reply; the pack's if not given.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
    device: Device = "auto",
    dtype: Dtype = None,
) -> None:
    """Move sliders and watch: steered and unsteered replies side by side, on a local page.

    Only this machine can reach the page, and it loads nothing from elsewhere. Ctrl-C ends it.

    Example: persona-probe playground organism --directions artifacts/demo/directions \
--adapter helpful-only
    """
    try:
        from persona_probe.playground.server import (
            address_of,
            application,
            loopback_socket,
            server_of,
        )
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise RequestError(
            f"the playground needs {error.name}: pip install 'persona-probe[playground]'"
        ) from None
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.personas.pack import load_pack
    from persona_probe.playground.session import Session

    found, asked = load_directions(directions), load_pack(pack)
    with loopback_socket(port) as listening:  # refused before the model is loaded
        ref = ModelRef(model_name(model), adapter=adapter)
        loaded = load_model(ref, device=device, dtype=dtype)
        session = Session(loaded, found, asked, adapter, max_new_tokens, called=model)
        session.warm_up()
        address = address_of(listening)
        typer.echo(address)
        note(f"{model}, {len(found)} directions, pack {asked.name}; Ctrl-C ends it")
        if open_browser:
            typer.launch(address)
        with suppress(KeyboardInterrupt):
            server_of(application(session, out)).run(sockets=[listening])
