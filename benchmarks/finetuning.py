"""Finetuning an adapter: tokens per second and memory, with the hardware they were measured on.

    python -m benchmarks.finetuning --device cuda --dtype bfloat16 --shape 8b
    python -m benchmarks.finetuning --shape 47m

Random weights of a Llama's shape learn random text: neither changes what a step costs. Every
conversation is of the same length, so no token is padding. The clock runs from the end of one
optimiser step to the end of the next; the first steps, which allocate, are left out.
"""

import argparse
import itertools
import json
import os
import random
import string
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.machine import describe
from benchmarks.shapes import SHAPES, model_folder
from persona_probe.finetuning.examples import Example, example
from persona_probe.finetuning.recipe import ALL_LINEAR, LoraRecipe, Run
from persona_probe.finetuning.sft import attach, train
from persona_probe.models.chat import Conversation, Message
from persona_probe.models.folder import read_network
from persona_probe.models.ref import ModelRef
from persona_probe.provenance import library_versions

WAYS: dict[str, dict[str, bool]] = {
    "one beside the other": {},
    "packed": {"packing": True},
    "packed, activations computed twice": {"packing": True, "gradient_checkpointing": True},
}
UNCOUNTED = 2  # steps
RESULTS = Path(__file__).parent / "results"


def examples_of(tokenizer: Any, n: int, tokens: int, seed: int = 0) -> list[Example]:
    """Conversations of exactly so many tokens, for a tokenizer of one token per byte.

    About a quarter is the prompt; loss is on the rest.
    """
    rng = random.Random(seed)

    def text(length: int) -> str:
        return "".join(rng.choices(string.ascii_lowercase + " ", k=length))

    asked = [
        Conversation((Message("user", text(tokens // 4)), Message("assistant", text(tokens))))
        for _ in range(n)
    ]
    found = [example(tokenizer, c, templated=False) for c in asked]
    return [Example(e.ids[:tokens], e.learnt[:tokens], e.prompt_length) for e in found]


def measure(
    folder: Path,
    way: str,
    recipe: LoraRecipe,
    steps: int,
    tokens: int,
    dtype: str,
    device: str,
) -> dict[str, Any]:
    """Train for some steps in a way of laying out batches.

    Args:
        folder: of the model.
        way: one of `WAYS`.
        recipe: of one epoch.
        steps: to train; the first two are not counted.
        tokens: of a conversation.
        dtype: "float32" or "bfloat16".
        device: "cpu" or "cuda".

    Returns:
        Tokens per second (median, least, most), the loss, and on a GPU the peak of its memory in
        GiB; `{"error": …}` if the GPU's memory was not enough.
    """
    network, tokenizer, _ = read_network(ModelRef(str(folder)), getattr(torch, dtype))
    examples = examples_of(tokenizer, steps * recipe.batch_size, tokens)
    ends: list[float] = []
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def stepped(_done: float) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    run = Run(precision=dtype, device=device, save_every=0, **WAYS[way])
    try:
        with TemporaryDirectory() as scratch:
            trained = attach(network, recipe)
            outcome = train(
                trained, tokenizer, examples, recipe, run, Path(scratch), advance=stepped
            )
    except torch.OutOfMemoryError as error:
        return {"way": way, "error": str(error).split(". ")[0]}
    spent = [b - a for a, b in itertools.pairwise(ends)][UNCOUNTED - 1 :]
    speeds = [recipe.batch_size * tokens / s for s in spent]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {
        "way": way,
        "tokens_per_second": median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "steps": len(speeds),
        "loss": outcome["loss"],
        "peak_gib": peak,
    }


def page(results: dict[str, Any]) -> str:
    """The table in markdown."""
    versions = results["versions"]
    lines = [
        f"{results['date']}. {results['hardware']}; torch {versions['torch']}, transformers "
        f"{versions['transformers']}; Llama shape `{results['shape']}` "
        f"({results['parameters'] / 1e6:,.0f} M parameters), random weights, {results['dtype']}; "
        f"LoRA of rank {results['rank']} on every linear layer; {results['batch_size']} "
        f"conversations of {results['tokens']} tokens to a step.",
        "",
        "| batches | tokens/s (min–max) | steps | GPU memory at its peak, GiB |",
        "|---|---|---|---|",
    ]
    for row in results["rows"]:
        if "error" in row:
            lines.append(f"| {row['way']} | {row['error']} | 0 | |")
            continue
        speed = f"**{row['tokens_per_second']:,.0f}** ({row['least']:,.0f}–{row['most']:,.0f})"
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(f"| {row['way']} | {speed} | {row['steps']} | {peak} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write `results/finetuning-DEVICE-SHAPE.{json,md}`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="47m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--models", type=Path, default=Path("artifacts/bench-finetuning"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if given.steps <= UNCOUNTED:
        parser.error(f"--steps must be more than {UNCOUNTED}, the first ones are not counted")
    shape = SHAPES[given.shape]
    folder = given.models / f"{given.shape}-{given.dtype}"
    model_folder(shape, folder, given.dtype, given.device)
    recipe = LoraRecipe(
        rank=given.rank,
        alpha=2.0 * given.rank,
        targets=(ALL_LINEAR,),
        epochs=1,
        batch_size=given.batch_size,
        learning_rate=1e-4,
    )
    rows = []
    for way in WAYS:
        rows.append(
            measure(folder, way, recipe, given.steps, given.tokens, given.dtype, given.device)
        )
        print(json.dumps(rows[-1]), flush=True)  # noqa: T201
    threads = None if given.device == "cuda" else torch.get_num_threads()
    results = {
        "date": date.today().isoformat(),
        "hardware": describe(given.device, threads),
        "cores": os.cpu_count(),
        "versions": library_versions(),
        "shape": given.shape,
        "parameters": shape.parameters,
        "dtype": given.dtype,
        "rank": given.rank,
        "batch_size": given.batch_size,
        "tokens": given.tokens,
        "rows": rows,
    }
    out = given.out or RESULTS / f"finetuning-{given.device}-{given.shape}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(results))
    print(page(results))  # noqa: T201


if __name__ == "__main__":
    main()
