"""Time of one way of generating, measured in a process of its own: `python -m … JOB`."""

import sys
from statistics import median
from typing import Any

from benchmarks.job import answer
from benchmarks.steerers import ABOUT, OURS, greedy, steerer_named, transformers_model
from benchmarks.steering_job import SteeringJob, load_setting
from benchmarks.steering_reference import compared
from benchmarks.timing import Stopwatch

WARM_UP = 2  # tokens


def measure(job: SteeringJob) -> dict[str, Any]:
    """Ratios to the floor of every repetition, the kept batch, and how many replies are right.

    The floor is `transformers.generate` without steering, at its best batch: seconds per sequence
    in this process, before and after each repetition.
    """
    steerer = steerer_named(job.method)(job.folder, job.device, job.dtype)
    plain = transformers_model(job.folder, job.device, job.dtype)
    prompts, configurations = load_setting(job)
    watch = Stopwatch(job.device)
    batches = [b for b in job.batches if b <= len(prompts)]

    def floor(batch: int, n_new: int = job.n_new) -> float:
        run = watch(lambda: greedy(plain, prompts, n_new, batch, job.device))
        return run / len(prompts)

    found: list[Any] = []

    def method(batch: int, n_new: int = job.n_new, n: int = len(configurations)) -> float:
        found.clear()
        run = watch(
            lambda: found.append(
                steerer.run(prompts, configurations[:n], job.schedule, n_new, batch)
            )
        )
        return run / (n * len(prompts))

    floor(batches[-1], WARM_UP), method(batches[-1], WARM_UP, 1)
    floors = {batch: floor(batch) for batch in batches}
    lowest = min(floors, key=lambda batch: floors[batch])
    tried = {} if job.method == OURS else {batch: method(batch, n=1) for batch in batches}
    best = min(tried, key=lambda batch: tried[batch]) if tried else 0
    around, seconds = [floor(lowest)], []
    for _ in range(job.repetitions):
        seconds.append(method(best))
        around.append(floor(lowest))
    ratios = [2 * s / (around[i] + around[i + 1]) for i, s in enumerate(seconds)]
    exact = job.schedule in ABOUT[job.method].exact
    return {
        "sequences": len(configurations) * len(prompts),
        "batch": best,
        "floor_batch": lowest,
        "floors": floors,
        "tried": tried,
        "ratios": ratios,
        "ratio": median(ratios),
        "seconds_per_sequence": median(seconds),
        "exactness": compared(found[0], job) if exact else None,
        "versions": _versions(job.method),
    }


def _versions(method: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", ABOUT[method].package)}


if __name__ == "__main__":
    answer(measure(SteeringJob.from_json(sys.argv[1])))
