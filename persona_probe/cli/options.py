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

Directions = Annotated[Path, typer.Option(help="A folder or file written by `find`.")]
Layer = Annotated[int, typer.Option(help="0-based block after which the direction was read.")]
Operation = Annotated[
    str,
    typer.Option(
        help="add[:norm|gap|raw], ablate[:LEVEL], clamp:LOW:HIGH[:raw|gap], "
        "rotate[:degrees|share], subspace[:SCALE], which takes all personas together, or "
        "patch:SOURCE, the values of another run on the same tokens: bare, an adapter, or a model."
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        help="prompt, last_prompt_token, response, both; of the response first:K, from:K, "
        "linear:K, exponential:H, or of a span both/first:K. Default: where it was read."
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        help="Only if the prompt projects above a threshold: "
        "PERSONA:LAYER:THRESHOLD[:last_prompt_token|prompt_mean][:gap|raw]."
    ),
]
Then = Annotated[
    list[str] | None,
    typer.Option(
        help="A further intervention, after the first; repeat it for more, in their order: "
        "'OPERATION PERSONA:LAYER [strength=X] [schedule=S] [sites=S] [if=CONDITION]'."
    ),
]
System = Annotated[str, typer.Option(help="System line.")]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Room for a reply.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")]


def model_name(name: str) -> str:
    """The folder of the embedded organism for its short name, anything else as it is."""
    if name != "organism" or Path(name).exists():
        return name
    from persona_probe.organism import CHECKPOINT

    return str(CHECKPOINT)
