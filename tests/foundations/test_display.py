"""Nouns in a notebook: escaped, in one style, with their n and interval."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

HOSTILE = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Cells of a page; fails on what is not closed and on anything but a table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in {"table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
        assert {name for name, _ in attrs} <= {"style", "colspan"}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def cells(noun: Any) -> list[str]:
    page = noun._repr_html_()
    # Whatever the page's own colours are: light, dark, or stripped.
    assert set(re.findall(r"(?<!-)color:([^;\"]+)|background:([^;\"]+)", page)) <= {
        ("inherit", ""),
        ("", "transparent"),
    }
    return Reader(page).cells


def test_an_estimate_shows_its_interval_and_n() -> None:
    from persona_probe import Estimate

    assert cells(Estimate(0.5, 0.25, 0.75, 8, 4)) == ["0.500 [0.250, 0.750] (n = 8)"]
    assert cells(Estimate.undefined("<nobody>")) == ["undefined (<nobody>)"]


def test_activations_show_what_was_read(tiny_model: Any, small_pack: Path) -> None:
    from persona_probe import capture, contrast, load_pack

    pack = load_pack(small_pack)
    asked = contrast(pack, pack.personas, pack.split().find)
    read = capture(tiny_model, asked, tiny_model.sites, ["last_prompt_token"], adapter="tuned")
    said = cells(read["last_prompt_token"])
    third = len(asked) // 3
    assert f"deontology {third}, neutral {third}, virtue {third}" in " ".join(
        ", ".join(sorted(cell.split(", "))) for cell in said
    )
    for fact in (str(len(asked)), "0, 1, 2", "32", "last_prompt_token", "tiny-llama", "tuned"):
        assert fact in said


def test_replies_stand_prompts_down_and_arms_across(tiny_model: Any) -> None:
    from persona_probe import Arm, generate, under
    from persona_probe.steering.completions import Completions

    asked = [under("", "Hello?", id="first"), under("", "Tell the truth.", id="second")]
    replies = generate(tiny_model, asked, [Arm("bare"), Arm("tuned", adapter="tuned")], 4)
    assert isinstance(replies, list)
    said = cells(replies)
    assert said[:4] == ["4 replies", "prompt", "bare", "tuned"]
    assert {"first", "second"} <= set(said)
    assert Reader(Completions()._repr_html_()).cells == ["0 replies", "prompt"]
    evil = Completions([replace(replies[0], text=HOSTILE, finished=True)])
    assert HOSTILE in cells(evil)
    sampled = generate(tiny_model, asked[:1], [Arm("bare")], 4, temperature=1.0, n_samples=2)
    assert "first, sample 1" in cells(sampled)


def test_directions_are_validated_and_compared_in_tables(tiny_model: Any, small_pack: Path) -> None:
    from persona_probe import (
        MeanDifference,
        capture,
        compare,
        contrast,
        find_directions,
        load_pack,
        validate,
    )

    pack = load_pack(small_pack)
    split = pack.split()
    every = capture(
        tiny_model,
        contrast(pack, pack.personas, {q.family for q in pack.questions}),
        tiny_model.sites[:2],
        ["last_prompt_token"],
    )["last_prompt_token"]
    parts = every.split(split)
    found = find_directions(parts["find"], MeanDifference(), "virtue", "neutral")
    few: dict[str, Any] = {"permutations": 19, "relabellings": 5}
    checked = validate(found, parts["evaluate"], parts["find"], **few)
    said = cells(checked)
    assert "Validation: virtue" in said[0]
    assert str(checked.rows[0].auroc) in said
    after = parts["evaluate"].with_values(parts["evaluate"].values + 0.1)
    moved = compare(parts["evaluate"], after, {"virtue": found}, draws=9)
    said = cells(moved)
    assert str(moved.rows[1].shift) in said
    assert any("not given" in cell or "undefined" in cell for cell in said), "the absent placebo"


def test_a_profile_and_a_ladder(tiny_model: Any, small_pack: Path) -> None:
    from persona_probe import Arm, load_pack, profiles
    from persona_probe.study.verdict import RUNGS, Rung, Verdict, Verdicts

    (profile,) = profiles(tiny_model, load_pack(small_pack).diagnostic, [Arm("plain")])
    said = cells(profile)
    assert said[0].startswith("Profile: plain")
    assert said[1:4] == ["dimension", "mean score", "RULE"]
    assert re.fullmatch(r"-?\d\.\d+ \[.*\] \(n = 24\)", said[4])
    rungs = tuple(Rung(name, n == 0 if n < 2 else None, HOSTILE) for n, name in enumerate(RUNGS))
    verdict = Verdict("virtue", rungs)
    said = cells(verdict)
    assert [said.count(word) for word in ("yes", "no", "not measured")] == [1, 1, 6]
    assert HOSTILE in said
    assert cells(Verdicts({"personas": {"virtue": verdict.to_json()}}))[-1] == HOSTILE


def test_a_long_table_says_how_much_is_left() -> None:
    from persona_probe.display import MOST_ROWS, table

    said = Reader(table(["n"], [[n] for n in range(MOST_ROWS + 5)])).cells
    assert said[-2:] == [str(MOST_ROWS - 1), "… 5 more"]


def test_a_bar_for_a_notebook_knows_rate_and_rest() -> None:
    from persona_probe.progress import _bar

    page = _bar("Reading <x>", 50, 200, "tokens", 10.0)
    assert "Reading &lt;x&gt;" in page
    assert "50 of 200 · 5 tokens/s · 30 s left" in page
    assert 'value="50" max="200"' in page
    assert "0 of 200" in _bar("Reading", 0, 200, "", 0.0)


def test_work_can_be_silenced(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from persona_probe.progress import silent, track

    monkeypatch.setenv("PERSONA_PROBE_PROGRESS", "1")
    with silent():
        assert list(track([1, 2], "Quiet work", 2)) == [1, 2]
    assert capsys.readouterr().err == ""
    assert list(track([1, 2], "Loud work", 2)) == [1, 2]
    said = capsys.readouterr()
    assert "Loud work" in said.err
    assert said.out == ""
