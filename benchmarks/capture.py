"""Reading activations: ours against what else there is, in one run.

    make bench-capture                                      # one CPU core, 47 M parameters
    python -m benchmarks.capture --device cuda --dtype bfloat16 --shape 8b --conversations 4096

Every method runs in processes of its own, with the interpreter of its own environment; see
`README.md` for what is measured and how.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks import environments, machine, pages, prompts, request, table
from benchmarks.job import AT_ONCE, QUIET, Job, ask
from benchmarks.methods import ABOUT, OURS
from benchmarks.reference import write_reference
from benchmarks.shapes import SHAPES, model_folder
from persona_probe.provenance import content_hash

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-bench"
CACHE = HERE.parent / "artifacts" / "bench-capture"
N_REFERENCE = 16
FEW_SITES = 2
MORE_PROMPTS = (256, 2048)


@dataclass(frozen=True)
class Amounts:
    """How much is enough on one kind of device; the names are those of `Job`."""

    peers: int
    tried_on: int
    bare_n: int
    bare_tokens: tuple[int, ...]


AMOUNTS = {
    "cpu": Amounts(32, 16, 128, (1024,)),
    "cuda": Amounts(512, 512, 4096, (4096, 8192, 16384, 32768)),
}


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "47m",
    conversations: Annotated[int, typer.Option(help="Read by ours.", min=16)] = 512,
    peers: Annotated[int | None, typer.Option(help="Read by each peer.", min=16)] = None,
    repetitions: Annotated[int, typer.Option(help="Of each measurement.", min=1)] = 3,
    only: Annotated[str, typer.Option(help="Methods, separated by commas.")] = ",".join(ABOUT),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = pages.RESULTS,
) -> None:
    """Measure time, memory and exactness of every method, and write the table."""
    names = only.split(",")
    os.environ |= QUIET
    request.require(device, AMOUNTS, shape, names, ABOUT)
    n_peers = peers or AMOUNTS[device].peers
    job, read = _prepared(device, dtype, shape, conversations, repetitions)
    measured = {}
    for name in (name for name in ABOUT if name in names):
        of_method = replace(
            job,
            method=name,
            n=conversations if name == OURS else n_peers,
            batches=ABOUT[name].batches,
            n_sites=SHAPES[shape].n_layers - (not ABOUT[name].before_norm),
        )
        measured[name] = _measure(of_method, n_peers)
        _say(f"{ABOUT[name].title}: {measured[name].get('ratio', measured[name].get('error'))}")
    own = Path(sys.executable)
    results = {
        **_setting(device, dtype, shape, read),
        "methods": measured,
        "bare": _memory(replace(job, method="bare_forward", n=n_peers), own),
        "more_prompts": [_memory(replace(job, n=n, n_sites=FEW_SITES), own) for n in MORE_PROMPTS],
    }
    page = table.page(results)
    pages.keep(results, page, out / f"capture-{device}-{shape}", "table")
    typer.echo(page)


def _prepared(
    device: str, dtype: str, shape: str, conversations: int, repetitions: int
) -> tuple[Job, list[prompts.Prompt]]:
    """A job that names model, conversations and reference on the disk; what ours reads."""
    _say(f"making the model and the reference in {CACHE} ...")
    sizes, amounts = SHAPES[shape], AMOUNTS[device]
    made = CACHE / f"{shape}-{dtype}-{content_hash(asdict(sizes))}"
    folder = model_folder(sizes, made, dtype, device)
    everything = _prompts(folder, max(conversations, *MORE_PROMPTS))
    compared = everything[:N_REFERENCE]
    named = folder / f"reference-{content_hash([p.ids for p in compared])}.safetensors"
    job = Job(
        method=OURS,
        folder=str(folder),
        prompts=str(prompts.save(folder / "prompts.json", everything)),
        reference=str(write_reference(str(folder), compared, device, named)),
        device=device,
        dtype=dtype,
        n=conversations,
        batches=ABOUT[OURS].batches,
        tried_on=amounts.tried_on,
        repetitions=repetitions,
        bare_n=amounts.bare_n,
        bare_tokens=amounts.bare_tokens,
        n_sites=sizes.n_layers,
    )
    return job, everything[:conversations]


def _prompts(folder: Path, n: int) -> list[prompts.Prompt]:
    """Conversations with their token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        prompts.Prompt(question, reply, tokenizer(question + reply)["input_ids"], len(question))
        for question, reply in prompts.texts(n)
    ]


def _measure(job: Job, n_memory: int) -> dict[str, Any]:
    """Time, then memory, each in a fresh process; `{"error": …}` where there is no such method."""
    environment = ABOUT[job.method].environment
    python = _interpreter(environment)
    if python is None:
        return {"error": f"not installed: {environments.reason(ENVIRONMENTS, environment or '')}"}
    found = ask("benchmarks.timing", job, python, _threads(job.device))
    if "error" in found:
        return {"error": f"failed: {found['error']}"}
    batches = tuple({found["batch"], max(job.batches)})
    return found | {"memory": _memory(replace(job, n=n_memory, batches=batches), python)}


def _memory(job: Job, python: Path) -> dict[str, Any]:
    return ask("benchmarks.memory", job, python, _threads(job.device), AT_ONCE)


def _interpreter(environment: str | None) -> Path | None:
    """The Python that has a method's packages; `None` where they are not installed."""
    if environment is None:
        return Path(sys.executable)
    return environments.interpreter(ENVIRONMENTS, environment)


def _threads(device: str) -> int | None:
    return 1 if device == "cpu" else None


def _setting(device: str, dtype: str, shape: str, read: Sequence[prompts.Prompt]) -> dict[str, Any]:
    sizes = SHAPES[shape]
    lengths = [len(prompt) for prompt in read]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": machine.describe(device, _threads(device)),
        "device": device,
        "dtype": dtype,
        "shape": shape,
        "parameters": sizes.parameters,
        "n_layers": sizes.n_layers,
        "vocabulary": sizes.vocabulary,
        "sites": sizes.n_layers,
        "median": round(median(lengths)),
        "longest": max(lengths),
    }


def _say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    typer.run(main)
