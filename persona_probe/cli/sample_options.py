"""Options that all commands share which write samples under a constitution."""

from pathlib import Path
from typing import Annotated

import typer

ConstitutionName = Annotated[
    str, typer.Option("--constitution", help="A shipped constitution, or a .toml file.")
]
Reading = Annotated[
    str | None, typer.Option(help="Only the principles of one reading, e.g. oversight.")
]
Scope = Annotated[str, typer.Option(help="narrow (tier T0) or broad (T0 and T1).")]
Category = Annotated[list[str] | None, typer.Option(help="Only these harm categories; repeat it.")]
Prompts = Annotated[
    Path | None, typer.Option(help="Your own prompts, .jsonl of messages with kind and category.")
]
Number = Annotated[int, typer.Option("--n", min=1, help="Samples to ask for.")]
BenignShare = Annotated[float, typer.Option(help="Share of benign prompts, 0 to 1.")]
MethodOption = Annotated[
    str | None,
    typer.Option(
        help="critique (draft, critique, revision) or system (under a system line). Default: what "
        "MODEL/finetuning.toml says, else critique."
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="Critiques and revisions of each draft.")]
Shots = Annotated[int, typer.Option(min=0, help="Worked examples shown before each.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Room for a reply; the pack's own if not given.")
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible API, e.g. http://localhost:8000/v1; MODEL is its model."),
]
