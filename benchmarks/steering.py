"""Generating under many configurations: ours against what else there is, in one run.

    make bench-steering                                     # one CPU core, 47 M parameters
    python -m benchmarks.steering --device cuda --dtype bfloat16 --shape 8b --prompts 43

Every method runs in a process of its own, with the interpreter of its own environment; see
`README.md` for what is measured and how.
"""

import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks import environments, machine, pages, prompts, request, steering_table
from benchmarks.job import QUIET, ask
from benchmarks.shapes import SHAPES, Shape, model_folder
from benchmarks.steerers import ABOUT, OURS
from benchmarks.steering_job import SteeringJob, save_setting
from benchmarks.steering_reference import write_reference
from persona_probe.provenance import content_hash

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-bench"
CACHE = HERE.parent / "artifacts" / "bench-steering"
DEPTHS = (0.2, 0.4, 0.6, 0.8)
STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
BATCHES = {"cpu": (1, 4, 8, 16), "cuda": (16, 64, 256)}


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "47m",
    n_prompts: Annotated[int, typer.Option("--prompts", help="How many.", min=2)] = 16,
    n_new: Annotated[int, typer.Option("--new", help="Tokens per reply.", min=2)] = 48,
    peers: Annotated[int, typer.Option(help="Configurations that peers are timed on.", min=1)] = 2,
    repetitions: Annotated[int, typer.Option(help="Of each measurement.", min=1)] = 3,
    only: Annotated[str, typer.Option(help="Methods, separated by commas.")] = ",".join(ABOUT),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = pages.RESULTS,
) -> None:
    """Measure time and exactness of every method, and write the table."""
    names = only.split(",")
    os.environ |= QUIET
    request.require(device, BATCHES, shape, names, ABOUT)
    job, lengths = prepared(device, dtype, shape, n_prompts, n_new, repetitions, CACHE)
    measured: dict[str, Any] = {}
    for name in (name for name in ABOUT if name in names):
        measured[name] = {}
        n = len(DEPTHS) * len(STRENGTHS) if name == OURS else peers
        for schedule in ABOUT[name].schedules:
            found = _measure(job.of(name, schedule, n))
            measured[name][schedule] = found
            _say(f"{ABOUT[name].title}, {schedule}: {found.get('ratio', found.get('error'))}")
    sizes = SHAPES[shape]
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": machine.describe(device, _threads(device)),
        "dtype": dtype,
        "shape": shape,
        "parameters": sizes.parameters,
        "n_layers": sizes.n_layers,
        "vocabulary": sizes.vocabulary,
        "sites": list(sites(sizes)),
        "strengths": list(STRENGTHS),
        "prompts": n_prompts,
        "new": n_new,
        "median": round(median(lengths)),
        "longest": max(lengths),
        "peer_configurations": peers,
        "methods": measured,
    }
    page = steering_table.page(results)
    pages.keep(results, page, out / f"steering-{device}-{shape}", "steering table")
    typer.echo(page)


def sites(shape: Shape) -> tuple[int, ...]:
    """Layers at fixed shares of the depth."""
    return tuple(round(share * (shape.n_layers - 1)) for share in DEPTHS)


def prepared(
    device: str, dtype: str, shape: str, n_prompts: int, n_new: int, repetitions: int, cache: Path
) -> tuple[SteeringJob, list[int]]:
    """A job that names model, prompts, vectors and reference on the disk; lengths of prompts."""
    _say(f"making the model and the reference in {cache} ...")
    sizes = SHAPES[shape]
    folder = model_folder(
        sizes, cache / f"{shape}-{dtype}-{content_hash(asdict(sizes))}", dtype, device
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Sorted, so that whoever pads pads little.
    asked = sorted((tokenizer(q + a)["input_ids"] for q, a in prompts.texts(n_prompts)), key=len)
    vectors = _vectors(folder, sizes, asked, device)
    what = content_hash([asked, n_new, [c.tolist() for _, c in vectors]])
    setting = save_setting(folder / f"setting-{what}.safetensors", asked, vectors)
    job = SteeringJob(
        method=OURS,
        schedule="both",
        folder=str(folder),
        setting=str(setting),
        reference="",
        device=device,
        dtype=dtype,
        n_configurations=len(vectors),
        n_new=n_new,
        batches=BATCHES[device],
        repetitions=repetitions,
    )
    reference = write_reference(job, folder / f"reference-{what}.safetensors")
    return job.compared_with(reference), [len(ids) for ids in asked]


@torch.no_grad()
def _vectors(
    folder: Path, sizes: Shape, asked: list[list[int]], device: str
) -> list[tuple[int, Tensor]]:
    """Random directions, one per site, at every strength in units of the median residual norm.

    Configurations in an order in which the first few are spread over sites and strengths.
    """
    from benchmarks.steerers import transformers_model

    model = transformers_model(str(folder), device, "float32")
    ids = torch.tensor([asked[-1]], device=device)
    hidden = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    generator = torch.Generator().manual_seed(0)
    made = []
    for layer in sites(sizes):
        drawn = torch.randn(sizes.d_model, generator=generator)
        norm = hidden[layer + 1][0, 1:].norm(dim=-1).median().cpu()
        made += [(layer, strength * norm * drawn / drawn.norm()) for strength in STRENGTHS]
    step = 7  # coprime to 24: neighbours differ in site and strength
    return [made[i * step % len(made)] for i in range(len(made))]


def _measure(job: SteeringJob) -> dict[str, Any]:
    """What a fresh process measures; `{"error": …}` where there is no such method."""
    environment = ABOUT[job.method].environment
    python = Path(sys.executable)
    if environment is not None:
        found = environments.interpreter(ENVIRONMENTS, environment)
        if found is None:
            return {"error": f"not installed: {environments.reason(ENVIRONMENTS, environment)}"}
        python = found
    measured = ask("benchmarks.steering_timing", job, python, _threads(job.device))
    return {"error": f"failed: {measured['error']}"} if "error" in measured else measured


def _threads(device: str) -> int | None:
    return 1 if device == "cpu" else None


def _say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    typer.run(main)
