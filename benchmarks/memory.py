"""How much memory one method takes beyond the loaded model and the results it gives back.

    python -m benchmarks.memory JOB        # JOB as JSON; the answer is the last line of stdout

Runs in a fresh process of the method's own interpreter, in which nothing else is loaded.
"""

import gc
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.job import Job, answer
from benchmarks.methods import method_named
from benchmarks.methods.ours import Capture
from benchmarks.prompts import load

MIB = 2**20


class Watermark:
    """The most memory in use since a moment: resident on a CPU, allocated on a GPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        gc.collect()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._reset()
            self._before = _resident("VmRSS")

    def above(self) -> int:
        """Bytes above what was in use at the beginning."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() - self._before
        return _resident("VmHWM") - self._before

    @staticmethod
    def _reset() -> None:
        """Forget the peak of loading, where the system lets us (Linux)."""
        forget = Path("/proc/self/clear_refs")
        if forget.exists():
            forget.write_text("5")


def _resident(field: str) -> int:
    """Bytes resident now ("VmRSS") or at most ("VmHWM")."""
    status = Path("/proc/self/status")
    if not status.exists():  # Not Linux: the peak is all there is, in bytes on a Mac.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(x for x in status.read_text().splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def measure(job: Job) -> dict[str, Any]:
    """MiB beyond model and results, for each batch in turn, smallest first."""
    method = method_named(job.method)(job.folder, job.device, job.dtype)
    if isinstance(method, Capture):
        method.sites = method.sites[: job.n_sites]
    prompts = load(Path(job.prompts))[: job.n]
    shortest = [min(prompts, key=len)]
    method.run(method.ready(shortest), 1)
    ready = method.ready(prompts)
    found = {}
    watermark = Watermark(job.device)
    for batch in sorted(job.batches):
        values = method.run(ready, batch)
        results = (
            0
            if job.device == "cuda"
            else sum(v.numel() * v.element_size() for v in values.values())
        )
        found[batch] = {
            "peak_mib": (watermark.above() - results) / MIB,
            "results_mib": results / MIB,
        }
        del values
    return {"n": len(prompts), "batches": found}


def _size(values: torch.Tensor) -> int:
    return values.numel() * values.element_size()


if __name__ == "__main__":
    answer(measure(Job.from_json(sys.argv[1])))
