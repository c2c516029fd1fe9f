"""How far a run has come."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_json
from persona_probe.study.stage import STAGES, is_running, read_log

PLAN = "study.json"


@dataclass(frozen=True)
class StageStatus:
    """One stage.

    Attributes:
        state: "done", "running", "interrupted" or "left".
        seconds: wall clock that it took, or has taken so far; `None` where it is not known.
        pieces: finished parts of a stage that is under way.
        detail: what it does, and how far it is.
    """

    name: str
    state: str
    seconds: float | None
    pieces: int
    detail: str

    @property
    def time(self) -> str:
        return "" if self.seconds is None else _clock(self.seconds)


@dataclass(frozen=True)
class RunStatus:
    """A run, stage by stage."""

    folder: Path
    running: bool
    stages: tuple[StageStatus, ...]

    @property
    def in_words(self) -> str:
        """One line, with what to do next."""
        done = sum(stage.state == "done" for stage in self.stages)
        took = _clock(sum(s.seconds or 0.0 for s in self.stages if s.state == "done"))
        said = f"{done} of {len(self.stages)} stages done in {took}"
        if done == len(self.stages):
            return f"{said}; `persona-probe study show {self.folder}` shows the verdict"
        if self.running:
            return f"{said}; running"
        return f"{said}; not running: `persona-probe study resume {self.folder}` goes on"

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "running": self.running,
            "stages": [asdict(stage) for stage in self.stages],
        }


def status_of(folder: Path) -> RunStatus:
    """Look at a run folder; nothing in it is changed, and nothing heavy is loaded.

    Raises:
        RequestError: no study was begun there.
    """
    if not (folder / PLAN).exists():
        raise RequestError(f"{folder} holds no study; `persona-probe study run --out {folder}`")
    log, running = read_log(folder), is_running(folder)
    personas = len(read_json(folder / PLAN).get("finetuned", {}))
    found = []
    for stage in STAGES:
        told = log.get(stage.name, {})
        place = folder / ".pieces" / stage.name
        pieces = len(list(place.glob("*.json"))) if place.exists() else 0
        state, seconds = "left", None
        if stage.done(folder) and told.get("state") != "running":
            state, seconds = "done", told.get("seconds")
        elif told.get("state") == "running":
            state = "running" if running else "interrupted"
            seconds = time.time() - told["started"] if running else None
        detail = f"{stage.title} ({pieces} of {personas + 1} parts)" if pieces else stage.title
        found.append(StageStatus(stage.name, state, seconds, pieces, detail))
    return RunStatus(folder, running, tuple(found))


def require_verdict(folder: Path) -> None:
    """Raise `RequestError` unless the run has come to its verdict."""
    status = status_of(folder)
    if not (folder / "verdict.json").exists():
        raise RequestError(f"{folder} has no verdict yet: {status.in_words}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
