"""Two runs on one page: what differs is found, and nothing else."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import Page
from synthetic_run import synthetic_files
from test_report_page import write_files


def page_of(tmp_path: Path, here: dict[str, Any], there: dict[str, Any]) -> str:
    from persona_probe.report import write_report

    one, other = write_files(tmp_path / "one", here), write_files(tmp_path / "two", there)
    path = write_report(one, against=other)
    assert path == one / "report-against-two.html"
    assert path.stat().st_size < 6_000_000
    return path.read_text(encoding="utf-8")


def test_a_run_against_itself_differs_in_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, synthetic_files(), synthetic_files())
    seen = Page(page).section(page, "against")
    assert "Both runs follow the same plan" in seen.words
    assert not [a for _, a in seen.tags if a.get("class") == "changed"]
    from persona_probe.report.against import arm_pairs, effect_pairs
    from persona_probe.report.run_folder import read_run

    run, other = read_run(tmp_path / "one"), read_run(tmp_path / "two", "against:")
    pairs = [*effect_pairs(run, other), *arm_pairs(run, other)]
    assert len(pairs) > 100
    assert {pair.change.value for pair in pairs} == {0.0}
    paired = [pair for pair in pairs if pair.paired]
    assert paired
    assert all(pair.change.low == pair.change.high == 0 for pair in paired)


def test_other_thresholds_are_said_before_any_number(tmp_path: Path) -> None:
    other = synthetic_files()
    other["study.json"]["thresholds"]["effect"] = 0.6
    other["study.json"]["seed"] = 1
    page = page_of(tmp_path, synthetic_files(), other)
    words = Page(page).section(page, "against").words
    assert "Thresholds differ (effect)" in words
    assert "thresholds.effect 0.5 0.6" in words
    assert "seed 0 1" in words
    assert words.index("Thresholds differ") < words.index("Rung by rung")


def test_a_rung_that_changed_is_marked_in_its_cell(tmp_path: Path) -> None:
    other = synthetic_files()
    other["verdict.json"]["personas"]["virtue"]["rungs"][3]["passed"] = True
    page = page_of(tmp_path, synthetic_files(), other)
    changed = [
        a for _, a in Page(page).section(page, "against").tags if a.get("class") == "changed"
    ]
    assert [a["title"] for a in changed] == ["L3 sufficient: failed here, passed there"]


def test_differences_have_the_interval_of_two_runs_and_links_to_both_rows(tmp_path: Path) -> None:
    from persona_probe.report.against import effect_pairs
    from persona_probe.report.run_folder import read_run

    other = synthetic_files()
    for row in other["effects.json"]:
        if row["metric"] == "ER_J":
            row["value"] = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 260, "n_clusters": 24}
    page = page_of(tmp_path, synthetic_files(), other)
    pairs = effect_pairs(read_run(tmp_path / "one"), read_run(tmp_path / "two", "against:"))
    pair = next(p for p in pairs if p.persona == "deontology" and p.what[1] == "ER_J")
    mine = pair.one
    assert pair.change.value == pytest.approx(mine.value - 0.1)
    assert pair.change.low == pytest.approx(
        pair.change.value - np.hypot(mine.value - mine.low, 0.1)
    )
    assert pair.change.high == pytest.approx(
        pair.change.value + np.hypot(mine.high - mine.value, 0.05)
    )
    for row in (pair.here, pair.there):
        assert f'href="#{row["@"]}"' in page
        assert f'<li id="{row["@"]}">' in page
    assert pair.there["@"].startswith("against:effects.json-")


def test_safe_replies_to_the_same_requests_are_compared_request_by_request(
    tmp_path: Path,
) -> None:
    from persona_probe.report.against import arm_pairs
    from persona_probe.report.run_folder import read_run

    files, other = synthetic_files(), synthetic_files()
    for content, outcome in ((files, "refuse"), (other, "harmful")):
        for row in content["replies.jsonl"]:
            row["outcome"] = "refuse"
            if row["family"] == "sabotage-1":
                row["outcome"] = outcome
    write_files(tmp_path / "one", files)
    write_files(tmp_path / "two", other)
    pairs = arm_pairs(read_run(tmp_path / "one"), read_run(tmp_path / "two", "against:"))
    pair = next(p for p in pairs if p.what == ("steered/virtue", "safe"))
    assert pair.paired
    assert pair.change.value == pytest.approx(1 / 60), "one request of sixty"
    other["replies.jsonl"] = [r for r in other["replies.jsonl"] if r["prompt"] != "sabotage-1"]
    write_files(tmp_path / "two", other)
    pairs = arm_pairs(read_run(tmp_path / "one"), read_run(tmp_path / "two", "against:"))
    assert not any(pair.paired for pair in pairs), "other requests cannot be paired"


def test_runs_that_share_no_persona_or_lack_a_plan_are_told_apart(tmp_path: Path) -> None:
    other = synthetic_files()
    del other["study.json"]
    other["verdict.json"]["personas"] = {"pirate": other["verdict.json"]["personas"]["virtue"]}
    other["arms.json"], other["effects.json"] = [], []
    page = page_of(tmp_path, synthetic_files(), other)
    words = Page(page).section(page, "against").words
    assert "two has no readable study.json" in words
    assert "The two runs have no persona in common" in words


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.report import write_report

    one = write_files(tmp_path / "one", synthetic_files())
    with pytest.raises(RequestError, match="no such run folder"):
        write_report(one, against=tmp_path / "nowhere")


def test_the_command_writes_the_comparison(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    one = write_files(tmp_path / "one", synthetic_files())
    two = write_files(tmp_path / "two", synthetic_files())
    done = CliRunner().invoke(app, ["report", str(one), "--against", str(two)])
    assert done.exit_code == 0, done.output
    assert "report-against-two.html" in re.sub(r"\s", "", done.output)
    assert (one / "report-against-two.html").exists()
