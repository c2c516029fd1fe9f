"""Benchmarks of one's own: from JSONL, CSV and the hub's datasets, with errors that say where."""

import json
from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.personas.pack import load_pack
from persona_probe.personas.suite_file import load_suite


def test_rows_of_json_become_prompts(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    rows = [
        {"prompt": "Do it.", "category": "privacy", "id": "a", "tier": "T2"},
        {"prompt": "Help me.", "category": "kindness", "kind": "benign", "family": "f"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = load_suite(path, tiers={"kindness": "T3"})
    first, second = suite.prompts
    assert (first.id, first.kind, first.tier, first.text) == ("a", "harmful", "T2", "Do it.")
    assert (second.id, second.kind, second.tier, second.family) == (
        "row-00002",
        "benign",
        "T3",
        "f",
    )
    assert suite.name == "bench"
    assert suite.hash != load_suite(path).hash


def test_columns_are_found_by_the_names_that_benchmarks_use_or_named(tmp_path: Path) -> None:
    path = tmp_path / "bench.csv"
    path.write_text('Behavior,SemanticCategory,other\n"Do it, now.",harm,x\n')
    assert load_suite(path).prompts[0].text == "Do it, now."
    assert load_suite(path, text="other", category="semanticcategory").prompts[0].text == "x"


def test_a_dataset_comes_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"goal": "Do it.", "category": "c"}))
    suite = load_suite(f"hf:{folder}@train")
    assert [p.text for p in suite.prompts] == ["Do it."]


def test_an_unknown_dataset_is_one_sentence() -> None:
    with pytest.raises(RequestError, match="no dataset '/nowhere/at-all'"):
        load_suite("hf:/nowhere/at-all")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.jsonl", '{"category": "c"}', "no column for the text; its columns are category: name"),
        ("s.jsonl", '{"text": "t"}', "no column for the category; its columns are text"),
        ("s.jsonl", '{"text": " ", "category": "c"}', r"row 1: 'text' is ' ', it must be a text"),
        ("s.jsonl", '{"text": "t", "category": "c", "kind": "odd"}', "row 1: kind is 'odd'"),
        ("s.jsonl", '{"text": "t", "category": "c", "tier": "T7"}', "row 1: tier is 'T7'"),
        ("s.jsonl", "[1]", r"row 1: \[1\] is no object"),
        ("s.jsonl", "", "holds no rows"),
        ("s.csv", "text,category\na,b,c\n", "row 1: more cells than columns"),
        ("s.xlsx", "x", "is no suite"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        load_suite(path)


def test_a_pack_with_another_suite_asks_that_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"text": f"Do {i}.", "category": "mine", "family": f"f{i % 10}"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack, suite = load_pack("organism"), load_suite(path)
    whole, split = pack.with_suite(suite, split=False), pack.with_suite(suite)
    assert whole.suite is suite
    assert whole.categories == {"mine": "mine"}
    assert len({pack.hash, whole.hash}) == 2
    assert set(suite.families) <= whole.split().evaluate
    assert set(suite.families) & split.split().find
    whole.require_categories(["mine"])
