"""How long a run still takes, judged by what it has done so far.

Stages differ in cost, and not alike for every model. So a stage that is under way in pieces is
judged by its own finished pieces, and what comes after it by its usual share of a study, at the
pace that this run has kept.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from persona_probe.study.stage import STAGES, Stage


@dataclass(frozen=True)
class TimeLeft:
    """An estimate, and what it rests on.

    Attributes:
        seconds: wall clock.
        basis: what it was judged by, in words.
    """

    seconds: float
    basis: str

    def __str__(self) -> str:
        return f"about {clock(self.seconds)} left"


@dataclass(frozen=True)
class Underway:
    """A stage that has begun and is not done.

    Attributes:
        spent: seconds since this process began it.
        pieces: seconds from that moment on at which pieces were finished, in order.
        kept: pieces that an earlier process had finished.
        of: pieces that it has.
    """

    spent: float
    pieces: tuple[float, ...] = ()
    kept: int = 0
    of: int = 1

    @property
    def left(self) -> float | None:
        """Seconds at the pace of its own pieces; `None` before the first."""
        if not self.pieces:
            return None
        each = self.pieces[-1] / len(self.pieces)
        missing = self.of - self.kept - len(self.pieces)
        return max(0.0, each * missing - (self.spent - self.pieces[-1]))

    @property
    def share(self) -> float:
        """Of the stage, done by pieces."""
        return min(1.0, (self.kept + len(self.pieces)) / self.of)


def time_left(
    took: Mapping[str, float], missing: Iterable[Stage], underway: Underway | None
) -> TimeLeft | None:
    """Estimate; `None` when nothing is left, or too little is done to judge by.

    Args:
        took: finished stage → seconds.
        missing: stages that are not done, in order; the first is the one that is under way.
        underway: how far that is; `None` when it has not begun.
    """
    left = list(missing)
    known = [stage for stage in STAGES if stage.name in took]
    done, usual = sum(took.values(), 0.0), sum((stage.usual for stage in known), 0.0)
    first = left[0] if left else None
    if underway is not None and first is not None and underway.pieces:
        done += underway.pieces[-1]
        usual += first.usual * len(underway.pieces) / underway.of
    if first is None or not done or not usual:
        return None
    pace = done / usual
    seconds = pace * sum(stage.usual for stage in left[1:])
    if underway is None:
        seconds += pace * first.usual
    elif underway.left is not None:
        seconds += underway.left
    else:
        seconds += max(0.0, pace * first.usual * (1 - underway.share) - underway.spent)
    return TimeLeft(seconds, _basis(len(known), underway, first))


def _basis(known: int, underway: Underway | None, first: Stage) -> str:
    stages = f"{known} finished stage{'s' * (known != 1)}"
    if underway is not None and underway.pieces:
        finished = underway.kept + len(underway.pieces)
        stages += f", {finished} of {underway.of} parts of {first.name}"
    return f"{stages} and each stage's usual share of a study"


def underway_in(folder: Path, stage: Stage, started: float, personas: int) -> Underway:
    """How far a stage is that began, or goes on, at the time `started`, by its pieces on disk."""
    place = folder / ".pieces" / stage.name
    written = sorted(path.stat().st_mtime for path in place.glob("*.json")) if stage.pieces else []
    own = tuple(at - started for at in written if at >= started)
    n = stage.n_pieces(personas)
    return Underway(max(0.0, time.time() - started), own, len(written) - len(own), n)


def clock(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
