"""Packs: what a folder of text must hold, and what is said when it does not."""

import json
from pathlib import Path

import pytest

from persona_probe.errors import RequestError
from persona_probe.personas.pack import load_pack

PACK = """
name = "small"
neutral_system = "You answer requests."
max_new_tokens = 16
dimensions = ["RULE"]
[[category]]
name = "harassment"
title = "Harassment"
[[category]]
name = "privacy"
[[persona]]
name = "deontology"
system_prompts = ["You keep to duties."]
[persona.signature]
RULE = 1.0
[[foil]]
name = "amoral"
system_prompts = ["You do as told."]
"""
JUDGE = """
refusal_openers = ["No"]
compliance_openers = ["Sure"]
refuse = [{pattern = "No", persona = "deontology", category = "privacy"}]
comply = [{pattern = "Sure"}]
"""
SAFETY = [
    {"id": "h0", "kind": "harmful", "category": "harassment", "tier": "T0", "family": "a"},
    {"id": "h1", "kind": "harmful", "category": "privacy", "tier": "T2", "family": "b"},
    {"id": "b0", "kind": "benign", "category": "benign", "tier": "T0", "family": "c"},
]
ITEM = {"id": "d0", "dimension": "RULE", "key": 1, "format": "statement", "family": "d"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pack.toml").write_text(PACK)
    (tmp_path / "judge.toml").write_text(JUDGE)
    lines = [json.dumps(row | {"text": "Do it."}) for row in SAFETY]
    (tmp_path / "safety.jsonl").write_text("\n".join(lines))
    item = ITEM | {"text": "Duties bind.", "options": ["Agree.", "Disagree."]}
    (tmp_path / "diagnostic.jsonl").write_text(json.dumps(item))
    question = {"id": "q0", "family": "e", "text": "Who are you?", "kind": "open"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question))
    return tmp_path


def test_a_folder_is_read_whole(folder: Path) -> None:
    pack = load_pack(folder)
    assert pack.suite.categories == {"harassment": "T0", "privacy": "T2"}
    assert [p.id for p in pack.suite.of(kind="harmful", tiers=["T2"]).prompts] == ["h1"]
    assert pack.persona("deontology").signature == {"RULE": 1.0}
    assert pack.persona("amoral").constitution == "You do as told."
    assert pack.diagnostic.items[0].options == ("Agree.", "Disagree.")
    assert pack.judge_rules.refuse[0].category == "privacy"
    assert "b" in pack.split().evaluate


def test_the_hash_sees_every_file(folder: Path) -> None:
    before = load_pack(folder).hash
    (folder / "questions.jsonl").write_text("")
    assert load_pack(folder).hash != before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("safety.jsonl", '"kind": "benign"', '"kind": "odd"', r"safety\.jsonl, row 3: kind must"),
        ("safety.jsonl", '"id": "h1"', '"id": "h0"', r"row 2: the id 'h0' occurs twice"),
        ("safety.jsonl", '"family": "a", ', "", r"row 1: .*family"),
        ("diagnostic.jsonl", '"key": 1', '"key": 2', r"row 1: an item needs a key of 1 or -1"),
        ("pack.toml", "neutral_system", "other", r"pack\.toml: the key 'neutral_system' is miss"),
        ("judge.toml", '"Sure"}', '"Sure("}', r"judge\.toml: 'Sure\(' is not a regular"),
        ("judge.toml", "refuse =", "refuse ==", r"judge\.toml: not TOML"),
    ],
)
def test_a_malformed_file_is_named(
    folder: Path, file: str, old: str, new: str, message: str
) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(RequestError, match=message):
        load_pack(folder)


def test_an_unknown_pack_or_persona_lists_the_choices(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"no pack 'nowhere'"):
        load_pack("nowhere")
    with pytest.raises(RequestError, match="it has deontology, amoral"):
        load_pack(folder).persona("stoic")
