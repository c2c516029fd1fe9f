"""Writes stores in processes that are killed, and goes on where they stopped.

    python killed_writer.py at_times FOLDER      one store, killed after random times
    python killed_writer.py at_lines FOLDER      many stores, killed every few lines of Python

FOLDER/reference is written without interruption, FOLDER/killed-… with. Prints, as JSON, how many
shards were found whole after each kill. A process of its own, because a forked child of a test run
would inherit its threads.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from persona_probe.activations.manifest import Manifest
from persona_probe.activations.rows import Row
from persona_probe.activations.store import Store
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance

SITES, D_MODEL = (Site(0), Site(3), Site(11)), 512
LARGE, SMALL = (64, 7, 0, *[64] * 10), (2, 0, 3)  # rows per shard
STRIDE = 23  # lines between one kill and the next
ATTEMPTS = 200


def write(folder: Path, shards: tuple[int, ...]) -> None:
    """Begin, or resume, and finish."""
    n = sum(shards)
    rows = [Row(f"row-{i}", "ab"[i % 2], f"f{i % 5}", "te\u2028xt", {"i": i}) for i in range(n)]
    manifest = Manifest("p", SITES, D_MODEL, "float16", shards, Provenance(model="tiny"))
    store = Store.begin(folder, manifest, rows)
    for shard in store.missing():
        shape = (shards[shard], len(SITES), D_MODEL)
        store.write(shard, torch.randn(shape, generator=torch.Generator().manual_seed(shard)))


def in_child(work: Callable[[], None], seconds: float | None = None) -> bool:
    """Do something in a process that is killed after some time; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exception() is None else 1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a writer failed")
    return os.WIFSIGNALED(status)


def write_until_line(folder: Path, line: int) -> None:
    """As `write`, but killed when so many lines of the package have run."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "persona_probe" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    write(folder, SMALL)


def whole_shards(folder: Path) -> int:
    """How many shards there are; every one of them is checked."""
    if not (folder / "manifest.json").exists():
        return 0
    store = Store.open(folder)
    missing = store.missing()
    there = set(range(len(store.manifest.shards))) - set(missing)
    for shard in there:
        checksum = store._checksum(shard)
        assert checksum is not None
        checksum.check(store.tensors(shard))
    return len(there)


def killed_at_times(folder: Path) -> list[int]:
    """One store, by many processes."""
    start = time.perf_counter()
    in_child(partial(write, folder / "reference", LARGE))
    longest = 0.6 * (time.perf_counter() - start)
    found, delays = [], random.Random(0)
    for _ in range(ATTEMPTS):
        if not in_child(partial(write, folder / "killed", LARGE), delays.uniform(0, longest)):
            return found
        found.append(whole_shards(folder / "killed"))
    raise RuntimeError("it never finished")


def killed_at_lines(folder: Path) -> list[int]:
    """Many stores, each by two processes."""
    in_child(partial(write, folder / "reference", SMALL))
    found: list[int] = []
    for line in count(1, STRIDE):
        killed = folder / f"killed-{line}"
        if not in_child(partial(write_until_line, killed, line)):
            break
        found.append(whole_shards(killed))
        in_child(partial(write, killed, SMALL))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    ways = {"at_times": killed_at_times, "at_lines": killed_at_lines}
    sys.stdout.write(json.dumps(ways[sys.argv[1]](Path(sys.argv[2]))))
