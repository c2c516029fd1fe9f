"""Places of rows: unique, stable, and as the files have them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import synthetic_files, write_synthetic_run


def test_every_row_of_every_file_has_a_place_of_its_own(run_folder: Path) -> None:
    from persona_probe.report.anchors import PLACE
    from persona_probe.report.run_folder import read_run

    run = read_run(run_folder)
    arms = synthetic_files()["arms.json"]
    assert [row[PLACE] for row in run.arms] == [f"arms.json-{i}" for i in range(len(arms))]
    assert run.rows("profiles.json", "identification")[3][PLACE] == "profiles.json-identification-3"
    assert run.verdicts["virtue"][PLACE] == "verdict.json-personas-2"
    assert run.rows("replies.jsonl")[7][PLACE] == "replies.jsonl-7"
    for place, row in run.places.items():
        assert re.fullmatch(r"\w+\.jsonl?(-\w+)*", place), place
        if isinstance(row, dict) and PLACE in row:
            assert row[PLACE] == place


def test_rows_stand_on_the_page_as_in_the_file(run_folder: Path, page: str) -> None:
    from html import unescape

    arms = synthetic_files()["arms.json"]
    found = dict(re.findall(r'<li id="arms\.json-(\d+)">.*?<code>(.*?)</code>', page))
    assert len(found) > 50
    for number, text in found.items():
        assert same(json.loads(unescape(text)), arms[int(number)]), number


def same(shown: Any, kept: Any) -> bool:
    """Equal to six digits, but for entries that are empty and for the usual level."""
    if isinstance(kept, dict):
        full = {k: v for k, v in kept.items() if v is not None and (k, v) != ("level", 0.95)}
        return shown.keys() == full.keys() and all(same(shown[k], v) for k, v in full.items())
    if isinstance(kept, list):
        return len(shown) == len(kept) and all(map(same, shown, kept))
    return bool(shown == (pytest.approx(kept, rel=1e-5) if isinstance(kept, float) else kept))


def test_only_rows_that_something_points_to_are_on_the_page(page: str) -> None:
    ids = set(re.findall(r'<li id="([^"]+)"', page))
    cited = set(re.findall(r'"#((?:\w+\.jsonl?)(?:-\w+)*)"', page))
    assert ids == cited
    assert re.search(r"replies\.jsonl</code></a>: \d+ of \d+ rows", page)


def test_a_page_elsewhere_links_back_to_the_files_of_the_run(tmp_path: Path) -> None:
    from persona_probe.report import write_report

    folder = write_synthetic_run(tmp_path / "runs" / "a run")
    (tmp_path / "pages").mkdir()
    page = write_report(folder, tmp_path / "pages").read_text(encoding="utf-8")
    assert 'href="../runs/a%20run/arms.json"' in page
    own = write_report(folder).read_text(encoding="utf-8")
    assert 'href="arms.json"' in own
    assert str(tmp_path) not in page + own


@pytest.mark.parametrize("rung", [f"L{i}" for i in range(8)])
def test_every_rung_names_the_rows_it_was_judged_by(run_folder: Path, rung: str) -> None:
    from persona_probe.report.run_folder import read_run
    from persona_probe.report.witnesses import witnesses

    run = read_run(run_folder)
    found = witnesses(run, "deontology", rung)
    assert found[0] is run.verdicts["deontology"]
    others = {"L0": 2, "L1": 1, "L2": 1, "L3": 1, "L5": 1, "L6": 1, "L7": 1}
    assert len(found) == 1 + others.get(rung, 0)
    assert all(row.get("persona", "deontology") == "deontology" for row in found[1:])
