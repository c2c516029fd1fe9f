"""How long is left: an estimate from what was done, and never one from nothing."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from persona_probe.study.stage import NAMES, STAGES, alone
from persona_probe.study.status import status_of
from persona_probe.study.time_left import Underway, time_left

PERSONAS = ("deontology", "virtue")
PACE = 10.0


def begun(folder: Path, upto: str, now: dict[str, Any] | None = None) -> Path:
    """A run whose stages before `upto` took ten times as long as usual."""
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({"finetuned": {key: {} for key in PERSONAS}}))
    log = {}
    for stage in STAGES[: NAMES.index(upto)]:
        for name in stage.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
        log[stage.name] = {"state": "done", "started": 0.0, "seconds": PACE * stage.usual}
    (folder / "stages.json").write_text(json.dumps(log | ({upto: now} if now else {})))
    return folder


def usual(first: str) -> float:
    return sum(stage.usual for stage in STAGES[NAMES.index(first) :])


def piece(folder: Path, stage: str, key: str, at: float) -> None:
    place = folder / ".pieces" / stage / f"{key}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")
    os.utime(place, (at, at))


def test_a_run_that_has_done_nothing_has_no_estimate(tmp_path: Path) -> None:
    status = status_of(begun(tmp_path / "run", NAMES[0]))
    assert status.left is None
    assert "left" not in status.in_words
    assert status.to_json()["left"] is None


def test_what_is_left_takes_its_usual_share_at_the_pace_so_far(tmp_path: Path) -> None:
    status = status_of(begun(tmp_path / "run", "guard"))
    assert status.left is not None
    assert status.left.seconds == pytest.approx(PACE * usual("guard"))
    assert f"{NAMES.index('guard')} finished stages" in status.left.basis
    assert "not running" in status.in_words
    assert "left, judged by" in status.in_words


def test_a_stage_under_way_is_judged_by_its_own_pieces(tmp_path: Path) -> None:
    """Three pieces, of which one took 40 s; 10 s have gone since."""
    start = time.time() - 50
    folder = begun(tmp_path / "run", "reply", {"state": "running", "started": start, "process": 1})
    piece(folder, "reply", "shared", start + 40)
    with alone(folder):
        status = status_of(folder)
    assert status.running
    assert status.left is not None
    stage = STAGES[NAMES.index("reply")]
    spent = PACE * sum(s.usual for s in STAGES[: NAMES.index("reply")]) + 40
    pace = spent / (sum(s.usual for s in STAGES[: NAMES.index("reply")]) + stage.usual / 3)
    assert status.left.seconds == pytest.approx(2 * 40 - 10 + pace * usual("agree"), abs=3)
    assert "1 of 3 parts of reply" in status.left.basis


def test_pieces_of_a_killed_process_are_work_done_and_no_measure_of_pace(tmp_path: Path) -> None:
    start = time.time() - 5
    now = {"state": "running", "started": start, "process": 1}
    folder = begun(tmp_path / "run", "refusal", now)
    piece(folder, "refusal", "shared", start - 1000)
    stage = STAGES[NAMES.index("refusal")]
    expected = PACE * (stage.usual * 2 / 3 + usual("dose"))
    interrupted = status_of(folder)
    assert not interrupted.running
    assert interrupted.left is not None
    assert interrupted.left.seconds == pytest.approx(expected)
    with alone(folder):
        running = status_of(folder)
    assert running.left is not None
    assert running.left.seconds == pytest.approx(expected - 5, abs=3)


def test_an_estimate_is_never_negative_and_ends_with_the_run(tmp_path: Path) -> None:
    took = {stage.name: stage.usual for stage in STAGES[:-1]}
    slow = Underway(spent=1e6, pieces=(1.0,), of=3)
    found = time_left(took, [STAGES[-1]], slow)
    assert found is not None
    assert found.seconds == 0
    assert time_left({stage.name: 1.0 for stage in STAGES}, [], None) is None
    assert status_of(begun(tmp_path / "run", "judge")).left is not None


def test_stages_know_their_pieces(finished_run: Path, tmp_path: Path) -> None:
    """What a stage says it is kept in is what it is kept in."""
    import shutil

    from persona_probe.study import pieces
    from persona_probe.study.request import planned_in
    from persona_probe.study.run import run_study

    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    kept: dict[str, int] = {}
    forget = pieces.forget

    def counted(folder: Path, stage: str) -> None:
        place = folder / ".pieces" / stage
        found = len(list(place.glob("*.json"))) if place.exists() else 0
        kept[stage] = max(kept.get(stage, 0), found)
        forget(folder, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("persona_probe.study.run.forget", counted)
        run_study(planned_in(copy), copy, "cpu", start="reply")
    for stage in STAGES[NAMES.index("reply") :]:
        expected = stage.n_pieces(len(PERSONAS)) if stage.pieces else 0
        assert kept[stage.name] == expected, stage.name
