"""What a benchmark was asked for, and whether it can be measured here."""

from collections.abc import Container, Iterable, Sequence

import typer

from benchmarks.shapes import SHAPES


def require(
    device: str, devices: Container[str], shape: str, names: Sequence[str], known: Iterable[str]
) -> None:
    """Refuse, in one sentence, what cannot be measured."""
    import torch

    known = list(known)
    unknown = [name for name in names if name not in known]
    trouble = None
    if device not in devices:
        trouble = f"unknown device {device!r}; choose cpu or cuda"
    elif shape not in SHAPES:
        trouble = f"unknown shape {shape!r}; choose one of {', '.join(SHAPES)}"
    elif unknown:
        trouble = f"unknown method {unknown[0]!r}; choose from {', '.join(known)}"
    elif device == "cuda" and not torch.cuda.is_available():
        trouble = "this machine has no CUDA device; leave --device out to measure on a CPU"
    if trouble:
        typer.echo(f"error: {trouble}", err=True)
        raise typer.Exit(2)
