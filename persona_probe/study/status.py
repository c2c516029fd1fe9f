"""How far a run has come."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_json
from persona_probe.study.stage import STAGES, is_running, read_log
from persona_probe.study.time_left import TimeLeft, clock, time_left, underway_in

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
        return "" if self.seconds is None else clock(self.seconds)


@dataclass(frozen=True)
class RunStatus:
    """A run, stage by stage.

    Attributes:
        left: how long the rest takes; `None` where there is nothing to judge by, or nothing left.
    """

    folder: Path
    running: bool
    stages: tuple[StageStatus, ...]
    left: TimeLeft | None = None

    @property
    def in_words(self) -> str:
        """One line, with what to do next."""
        done = sum(stage.state == "done" for stage in self.stages)
        took = clock(sum((s.seconds or 0.0 for s in self.stages if s.state == "done"), 0.0))
        said = f"{done} of {len(self.stages)} stages done in {took}"
        if done == len(self.stages):
            return f"{said}; `persona-probe study show {self.folder}` shows the verdict"
        left = "" if self.left is None else f"; {self.left}, judged by {self.left.basis}"
        if self.running:
            return f"{said}; running{left}"
        return f"{said}; not running: `persona-probe study resume {self.folder}` goes on{left}"

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.folder),
            "running": self.running,
            "left": None if self.left is None else asdict(self.left),
            "stages": [asdict(stage) for stage in self.stages],
        }


def status_of(folder: Path) -> RunStatus:
    """Look at a run folder; nothing in it is changed, and nothing heavy is loaded.

    Raises:
        RequestError: no study was begun there.
    """
    if not (folder / PLAN).exists():
        raise RequestError(
            f"{folder} holds no study; `persona-probe study run STUDY.toml --out {folder}` begins "
            "one"
        )
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
        parts = stage.n_pieces(personas)
        detail = f"{stage.title} ({pieces} of {parts} parts)" if pieces else stage.title
        found.append(StageStatus(stage.name, state, seconds, pieces, detail))
    return RunStatus(folder, running, tuple(found), _left(folder, running, found))


def _left(folder: Path, running: bool, found: Sequence[StageStatus]) -> TimeLeft | None:
    log, personas = read_log(folder), len(read_json(folder / PLAN).get("finetuned", {}))
    missing = [stage for stage, told in zip(STAGES, found, strict=True) if told.state != "done"]
    begun = next((s for s in missing if log.get(s.name, {}).get("state") == "running"), None)
    underway = None
    if begun is not None:
        missing = [begun, *(stage for stage in missing if stage is not begun)]
        since = log[begun.name]["started"] if running else time.time()
        underway = underway_in(folder, begun, since, personas)
    took = {told.name: told.seconds or 0.0 for told in found if told.state == "done"}
    return time_left(took, missing, underway)


def require_verdict(folder: Path) -> None:
    """Raise `RequestError` unless the run has come to its verdict."""
    status = status_of(folder)
    if not (folder / "verdict.json").exists():
        raise RequestError(f"{folder} has no verdict yet: {status.in_words}")
