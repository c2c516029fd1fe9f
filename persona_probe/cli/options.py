"""Options that several commands share, declared once so that they read alike everywhere."""

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "Model folder or hub name; 'organism' is the embedded model."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Adapter = Annotated[
    str | None,
    typer.Option(help="LoRA adapter: a name in MODEL/adapters, a folder, or a hub name."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default by device.")]
PackName = Annotated[str, typer.Option("--pack", help="A shipped pack, or a pack folder.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Out = Annotated[Path, typer.Option(help="Where the result is written.")]


def model_name(name: str) -> str:
    """The folder of the embedded organism for its short name, anything else as it is."""
    if name != "organism" or Path(name).exists():
        return name
    from persona_probe.organism import CHECKPOINT

    return str(CHECKPOINT)
