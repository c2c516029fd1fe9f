"""What a worker process is told, and what it answers: JSON, since its libraries are others."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parent.parent

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PERSONA_PROBE_PROGRESS": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}

AT_ONCE = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""Memory goes back to the system when it is freed (glibc), so that a peak is what was in use at
one time and not what fragments add, which differs by tens of MiB from run to run."""


class Told(Protocol):
    """What a worker can be told."""

    def to_json(self) -> str: ...


@dataclass(frozen=True)
class Job:
    """One measurement of one method.

    Attributes:
        method: name of its file.
        folder: of the model.
        prompts: file with the conversations.
        reference: file with what the values should be.
        device: "cpu" or "cuda".
        dtype: of the weights.
        n: conversations to read in each repetition, from the beginning.
        batches: rows at a time to try; the fastest is kept.
        tried_on: conversations that the batches are tried on.
        repetitions: of the kept batch.
        bare_n: conversations that the bare forward pass takes its tokens from: its time per token
            does not depend on their number, and they begin with a fair sample.
        bare_tokens: tokens of a batch of the bare forward pass; of several, the fastest is kept.
        n_sites: sites to compare with the reference, from the first one; where memory is measured,
            the sites that ours reads.
    """

    method: str
    folder: str
    prompts: str
    reference: str
    device: str
    dtype: str
    n: int
    batches: tuple[int, ...]
    tried_on: int
    repetitions: int
    bare_n: int
    bare_tokens: tuple[int, ...]
    n_sites: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        fields: dict[str, Any] = json.loads(text)
        for name in ("batches", "bare_tokens"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def ask(
    module: str,
    job: Told,
    python: Path,
    threads: int | None,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a worker in a fresh process of some interpreter.

    Args:
        module: to run.
        job: what it is told.
        python: the interpreter.
        threads: of a CPU; as many as there are, if not given.
        settings: further environment variables.

    Returns:
        Its answer; `{"error": …}` with its last words if it failed.
    """
    done = subprocess.run(
        [str(python), "-m", module, job.to_json()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**_environment(threads), **(settings or {})},
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        sys.stderr.write(done.stderr[-2000:])
        return {"error": said[-1].strip()[:200] if said else f"exit code {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def answer(value: dict[str, Any]) -> None:
    """Say it on the last line of standard output."""
    sys.stdout.write(f"\n{json.dumps(value)}\n")


def _environment(threads: int | None) -> dict[str, str]:
    """Offline, quiet, and on as many cores as the measurement is about."""
    cores = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**os.environ, **QUIET, **cores}
