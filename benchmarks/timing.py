"""How long one method takes, in units of the bare forward pass of the same tokens.

    python -m benchmarks.timing JOB        # JOB as JSON; the answer is the last line of stdout

Runs in the method's own interpreter. The bare forward pass runs right before and right after
every repetition, in the same process, because the speed of a shared machine drifts by factors
within a minute; only ratios mean anything.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import bare
from benchmarks.job import Job, answer
from benchmarks.methods import ABOUT, Method, Values, method_named
from benchmarks.prompts import Prompt, load
from benchmarks.reference import largest_difference


class Stopwatch:
    """Seconds that something takes: of the processor on a CPU, of the clock on a GPU.

    On one thread the two differ by what other programs take away, which is not the method's.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"

    def __call__(self, work: Callable[[], Any]) -> float:
        gc.collect()
        started = self._now()
        work()
        return self._now() - started

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def measure(job: Job) -> dict[str, Any]:
    """Ratios of every repetition, the kept batch, and how far the values are from the reference."""
    method = method_named(job.method)(job.folder, job.device, job.dtype)
    network = _bare_network(job)
    prompts = load(Path(job.prompts))[: job.n]
    watch = Stopwatch(job.device)
    _warm_up(method, network, prompts, job)
    few = prompts[: job.tried_on]
    bare_tokens = _fastest(network, prompts[: job.bare_n], job.bare_tokens, watch)

    tried = {}
    if len(job.batches) > 1:
        floor = bare.rows(few, bare_tokens)
        for batch in job.batches:
            tried[batch] = _repeat(method, network, few, floor, batch, 1, watch)[0][0]
    best = min(tried, key=lambda batch: tried[batch]) if tried else job.batches[0]
    floor = bare.rows(prompts[: job.bare_n], bare_tokens)
    ratios, seconds, values = _repeat(method, network, prompts, floor, best, job.repetitions, watch)
    difference, scale = largest_difference(values, Path(job.reference), job.n_sites)
    tokens = sum(map(len, prompts))
    return {
        "n": len(prompts),
        "tokens": tokens,
        "batch": best,
        "tried": tried,
        "tried_on": job.tried_on,
        "ratios": ratios,
        "ratio": median(ratios),
        "tokens_per_second": tokens / median(seconds),
        "flops_per_token": bare.block_flops(network),
        "ceiling_flops": bare.ceiling(network, bare_tokens, watch),
        "bare_tokens": bare_tokens,
        "positions": list(values),
        "difference": difference,
        "root_mean_square": scale,
        "finite": all(bool(torch.isfinite(v).all()) for v in values.values()),
        "reading_seconds": watch(lambda: method.ready(prompts)),
        "versions": _versions(job.method),
    }


def _bare_network(job: Job) -> Any:
    """A model of its own, so that what a method changes in the other one costs it alone."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, job.dtype)
    return AutoModelForCausalLM.from_pretrained(job.folder, dtype=dtype).to(job.device).eval()


def _warm_up(method: Method, network: Any, prompts: Sequence[Prompt], job: Job) -> None:
    """First calls compile, allocate and check things that later ones do not."""
    few = prompts[:4]
    for batch in job.batches:
        method.run(method.ready(few), batch)
    bare.forward(network, bare.rows(few, job.bare_tokens[0]))


def _fastest(
    network: Any, prompts: Sequence[Prompt], choices: Sequence[int], watch: Stopwatch
) -> int:
    """The batch size at which the bare forward pass takes the least time."""
    if len(choices) == 1:
        return choices[0]
    return min(
        choices,
        key=lambda tokens: watch(lambda: bare.forward(network, bare.rows(prompts, tokens))),
    )


def _repeat(
    method: Method,
    network: Any,
    prompts: Sequence[Prompt],
    floor: Sequence[Tensor],
    batch: int,
    repetitions: int,
    watch: Stopwatch,
) -> tuple[list[float], list[float], Values]:
    """Bare, method, bare, method, … bare: each repetition against its two neighbours, per token."""
    ready = method.ready(prompts)
    scale = sum(map(len, prompts)) / sum(ids.numel() for ids in floor)
    found: list[Values] = []
    around = [watch(lambda: bare.forward(network, floor))]
    seconds = []
    for _ in range(repetitions):
        found.clear()
        seconds.append(watch(lambda: found.append(method.run(ready, batch))))
        around.append(watch(lambda: bare.forward(network, floor)))
    ratios = [2 * s / (scale * (around[i] + around[i + 1])) for i, s in enumerate(seconds)]
    return ratios, seconds, found[0]


def _versions(method: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", ABOUT[method].package)}


if __name__ == "__main__":
    answer(measure(Job.from_json(sys.argv[1])))
