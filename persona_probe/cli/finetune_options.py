"""Options that the finetuning commands share."""

from pathlib import Path
from typing import Annotated

import typer

Rank = Annotated[
    int | None,
    typer.Option(min=1, help="Of the LoRA factors."),
]
Alpha = Annotated[float | None, typer.Option(help="The update is scaled by alpha / rank.")]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Projection to adapt, e.g. v_proj, or all-linear; repeat it."),
]
Layers = Annotated[
    str | None, typer.Option(help="Blocks to adapt: all, 7, 4,8,12, 4-8 or 0.2-0.8.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Conversations per step and device.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak; warm-up, then linear decay.")]
Rslora = Annotated[bool | None, typer.Option("--rslora", help="Scale by alpha / sqrt(rank).")]
Dora = Annotated[bool | None, typer.Option("--dora", help="Learn magnitudes too (DoRA).")]
Full = Annotated[bool | None, typer.Option("--full", help="Train every weight, no adapter.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        help="TOML of rank, alpha, targets, layers, epochs, batch_size, learning_rate … Default: "
        "MODEL/finetuning.toml, else rank 16 on all-linear, 3 epochs, 1e-4.",
    ),
]
Accumulate = Annotated[int, typer.Option(min=1, help="Batches per step.")]
Packing = Annotated[
    bool, typer.Option("--packing", help="No padding; logits of learnt tokens only.")
]
Checkpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 under autocast.")]
LaunchedDevice = Annotated[
    str, typer.Option(help="auto, cpu or cuda; several by `accelerate launch`.")
]
TrainDevice = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
HeldOut = Annotated[float, typer.Option(help="Share of the data whose loss is evaluated.")]
EvaluateEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between evaluations; each epoch if not given.")
]
SaveEvery = Annotated[
    int | None,
    typer.Option(min=0, help="Steps between checkpoints; each epoch if not given, none if 0."),
]
Patience = Annotated[
    int | None, typer.Option(min=1, help="Stop after so many evaluations without gain.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Train on plain text, no chat template.")]
Steer = Annotated[
    list[str] | None,
    typer.Option(metavar="FOLDER:PERSONA:LAYER", help="Direction to steer training by."),
]
Operation = Annotated[str, typer.Option(help="add, add:gap, ablate (at every layer) …")]
Strength = Annotated[float, typer.Option(help="Of an addition, in its units.")]
Schedule = Annotated[
    str | None, typer.Option(help="prompt, response, both …; where it was read if not given.")
]
WatchOption = Annotated[
    list[str] | None,
    typer.Option("--watch", metavar="FOLDER:PERSONA:LAYER", help="Direction to project onto."),
]
WatchEvery = Annotated[int, typer.Option(min=1, help="Steps between projections.")]
WatchPrompts = Annotated[
    str, typer.Option(help="File of prompts, or a pack (its select part's harmful ones).")
]
Control = Annotated[
    str | None, typer.Option(help="placebo, refusal-only or shuffled; another --seed for a second.")
]
Refusal = Annotated[
    list[str] | None, typer.Option(help="Flat refusal of the control refusal-only; repeat it.")
]


def blocks(text: str | None, n_layers: int) -> tuple[int, ...] | None:
    """The block numbers of `--layers`."""
    from persona_probe.models.site import parse_sites

    return None if text is None else tuple(s.layer for s in parse_sites(text, n_layers))
