"""The stages of a study by name: what each leaves behind, and how far a run has come.

A stage reads the files of the stages before it, writes its own last and whole, and is done when
they are there. `stages.json` in the run folder says when each ran and what it took.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from persona_probe.errors import RequestError
from persona_probe.files import make_folder, read_json, write_json

LOG = "stages.json"


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: as the command line knows it.
        title: what it does.
        files: what it writes, relative to the run folder, the last one last.
        usual: processor seconds that it took in a default study of the embedded model, with one
            thread; what counts is its share of all stages.
        pieces: how many it is kept in, "" for one, else one per persona, or these and a shared one.
    """

    name: str
    title: str
    files: tuple[str, ...]
    usual: float
    pieces: Literal["", "personas", "personas and shared"] = ""

    def n_pieces(self, personas: int) -> int:
        """How many pieces the stage is kept in."""
        return {"": 1, "personas": personas, "personas and shared": personas + 1}[self.pieces]

    def done(self, folder: Path) -> bool:
        """Whether everything that it writes is there."""
        return all((folder / name).exists() for name in self.files)

    def undo(self, folder: Path) -> None:
        """Take away what it wrote, so that it runs again; the rest of the folder stays."""
        for name in reversed(self.files):
            (folder / name).unlink(missing_ok=True)


STAGES = (
    Stage(
        "extract", "read activations before and after finetuning", ("activations/.complete",), 13.6
    ),
    Stage("find", "find directions", ("directions/README.md",), 0.1),
    Stage("validate", "validate them on held-out families", ("validation.json",), 1.1),
    Stage("compare", "compare before with after", ("comparison.json",), 3.0),
    Stage("select", "select site and strength", ("selection.json",), 35.7),
    Stage("train", "train the best one vector at each chosen site", ("training.json",), 22.2),
    Stage("landscape", "place every model in activation space", ("landscape.json",), 0.8),
    Stage("reply", "generate and judge replies", ("replies.jsonl",), 163.0, "personas and shared"),
    Stage("agree", "compare two judges", ("agreement.json",), 0.1),
    Stage("tokens", "project a few replies token by token", ("tokens.jsonl",), 2.1),
    Stage(
        "robust",
        "ask again in other words, later, and under pressure",
        ("variants.jsonl",),
        26.2,
        "personas and shared",
    ),
    Stage("guard", "measure what steering costs", ("guards.json",), 19.7, "personas"),
    Stage(
        "refusal",
        "measure refusal probabilities, against chance",
        ("refusal.json",),
        58.8,
        "personas and shared",
    ),
    Stage("dose", "measure dose and response", ("dose.json", "responses.json"), 27.4, "personas"),
    Stage("mediate", "exchange components on fixed text", ("exchanges.json",), 30.4, "personas"),
    Stage(
        "profile", "measure persona profiles", ("profile_scores.json",), 16.8, "personas and shared"
    ),
    Stage(
        "judge",
        "judge the evidence",
        (
            "arms.json", "effects.json", "profiles.json", "steerability.json", "mediation.json",
            "tiers.json", "transfer.json", "rank_curve.json", "harm_ledger.json", "robustness.json",
            "verdict.json",
        ),
        16.1,
    ),
)  # fmt: skip
NAMES = tuple(stage.name for stage in STAGES)


def stage_named(name: str) -> Stage:
    """The stage of this name.

    Raises:
        RequestError: there is none; the message lists them.
    """
    if name not in NAMES:
        raise RequestError(f"no stage {name!r}; the stages are {', '.join(NAMES)}")
    return STAGES[NAMES.index(name)]


@contextmanager
def logged(stage: Stage, folder: Path) -> Iterator[None]:
    """Write down that the stage runs, and, when it is done, what it took."""
    log = read_log(folder)
    started = {"state": "running", "started": time.time(), "process": os.getpid()}
    write_json(folder / LOG, log | {stage.name: started})
    wall, cpu = time.monotonic(), time.process_time()
    yield
    took = {
        "state": "done",
        "started": started["started"],
        "seconds": round(time.monotonic() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    write_json(folder / LOG, log | {stage.name: took})


def read_log(folder: Path) -> dict[str, Any]:
    """What `logged` wrote; nothing in a folder without a log."""
    path = folder / LOG
    log: dict[str, Any] = read_json(path) if path.exists() else {}
    return log


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder; two processes that write to one run would mix their numbers.

    The lock is the operating system's and goes with the process, however that ends.

    Raises:
        RequestError: another process holds it.
    """
    import fcntl

    make_folder(folder)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise RequestError(
                f"another process ({handle.read().strip() or 'unknown'}) is running the study in "
                f"{folder}; wait for it (`persona-probe study status {folder}`), or choose another "
                "--out"
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def is_running(folder: Path) -> bool:
    """Whether some process holds the run folder."""
    import fcntl

    if not (folder / ".lock").exists():
        return False
    with (folder / ".lock").open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
