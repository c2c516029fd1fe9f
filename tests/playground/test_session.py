"""Replies, profile and saved vectors, against the commands and plain files they stand for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.activations.contrast import under
from persona_probe.directions.direction_set import load_directions
from persona_probe.errors import RequestError
from persona_probe.evaluation.profile import profiles
from persona_probe.interchange.own_vector import read_steering_vector
from persona_probe.models.site import Site
from persona_probe.playground.saving import save_setting
from persona_probe.playground.session import ITEMS
from persona_probe.playground.setting import Question, Setting
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.generation import generate

MOVED = Setting(1, {"virtue": 2.0, "service": -1.0}, "both")


def texts(session: Any, setting: Setting, text: str = "Tell the truth.") -> list[str]:
    pieces = list(session.reply(Question(text, setting, "virtue", "You are kind.")))
    return ["".join(p["text"] for p in pieces if p["row"] == row) for row in (0, 1)]


def test_sliders_at_zero_give_exactly_the_unsteered_reply(session: Any) -> None:
    (plain,) = generate(
        session.model,
        [under("You are kind.", "Tell the truth.")],
        [Arm("plain", adapter="tuned")],
        12,
    )
    unsteered, steered = texts(session, Setting(1, {"virtue": 0.0}))
    assert unsteered == steered == plain.text.rstrip("\ufffd")
    moved = texts(session, MOVED)
    assert moved[0] == unsteered
    assert moved[1] != unsteered


def test_a_projection_is_in_class_gaps_of_the_direction_that_colours(session: Any) -> None:
    far = Setting(1, {"virtue": 5.0}, "both")
    direction = session.directions["virtue"][Site(1)]
    pieces = list(session.reply(Question("Hi.", far, "virtue")))
    first = {p["row"]: p["value"] for p in reversed(pieces)}
    # The first tokens are chosen by different residuals, so only the size of the step is sure.
    assert first[1] - first[0] > 0.5 * 5.0 * direction.norm / direction.gap


def test_what_is_saved_is_what_was_heard(session: Any, tmp_path: Path) -> None:
    saved = save_setting(session, MOVED, "my-mixture", tmp_path)
    # On the command line: `steer --operation add:gap --strength 1`.
    direction = load_directions(saved.direction.parent)["my-mixture"][Site(1)]
    arm = Arm("again", (Intervention(direction, Add(1.0, "gap"), "both"),), "tuned")
    (again,) = generate(session.model, [under("You are kind.", "Tell the truth.")], [arm], 12)
    assert again.text.rstrip("\ufffd") == texts(session, MOVED)[1]
    # Without this package: one tensor to add.
    from safetensors import safe_open

    with safe_open(saved.vector, framework="pt") as file:
        vector = file.get_tensor("vector")
        about = json.loads(file.metadata()["persona_probe"])
    (amount,) = Add(1.0, "gap").parameters(direction, direction.site)
    assert torch.equal(vector, torch.tensor([amount]) * direction.unit)
    assert (about["layer"], about["positions"], about["adapter"]) == (1, "both", "tuned")
    assert {p["persona"]: (p["strength"], p["units"]) for p in about["parts"]} == {
        "virtue": (2.0, "norm"),
        "service": (-1.0, "norm"),
    }
    assert "2 norm of virtue + -1 norm of service" in about["provenance"]["command"]
    assert torch.equal(read_steering_vector(saved.vector)[0], vector)
    assert "--operation add:gap --strength 1 --schedule both --adapter tuned" in saved.command


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_no_file_name_is_refused(name: str, session: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot name a file"):
        save_setting(session, MOVED, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_is_not_saved(session: Any, tmp_path: Path) -> None:
    save_setting(session, MOVED, "once", tmp_path)
    before = (tmp_path / "once" / "steering_vector.safetensors").read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        save_setting(session, Setting(1, {"virtue": 1.0}), "once", tmp_path)
    assert (tmp_path / "once" / "steering_vector.safetensors").read_bytes() == before
    with pytest.raises(RequestError, match="all sliders are at 0"):
        save_setting(session, Setting(1, {"virtue": 0.0}), "none", tmp_path)
    assert not (tmp_path / "none").exists()


def test_the_profile_is_that_of_the_whole_diagnostic_part(session: Any) -> None:
    measured = session.profile(MOVED)
    pack = session.pack
    part = pack.diagnostic.of(pack.split().evaluate)
    assert 0 < measured["items"] == len(part) <= ITEMS
    plain = Arm("plain", adapter="tuned")
    (expected,) = profiles(session.model, part, [plain], pack.neutral_system)
    for row, (name, value) in zip(
        measured["dimensions"], expected.by_dimension.items(), strict=True
    ):
        assert row["name"].upper() == name
        assert row["unsteered"]["value"] == pytest.approx(value, abs=1e-5)
        assert row["unsteered"]["low"] <= value <= row["unsteered"]["high"]
        assert row["steered"]["value"] != pytest.approx(value, abs=1e-4)
        assert row["random"]["value"] != pytest.approx(row["steered"]["value"], abs=1e-4)
    assert [m["name"] for m in measured["matches"]] == ["deontology", "virtue"]


def test_the_profile_at_zero_has_not_moved(session: Any) -> None:
    measured = session.profile(Setting(1))
    assert measured["matches"] == []
    assert all(row["steered"] == row["unsteered"] for row in measured["dimensions"])


def test_items_that_a_direction_was_found_on_are_not_asked(session: Any) -> None:
    families = sorted(
        {item.family for item in session.pack.diagnostic.of(session.pack.split().evaluate).items}
    )
    direction = session.directions["virtue"][Site(1)]

    def found_on(some: list[str]) -> Any:
        tainted = replace(direction, families_used=frozenset(some))
        return replace(session, directions={"virtue": {Site(1): tainted}})

    fewer = found_on(families[:1]).profile(Setting(1))["items"]
    assert 0 < fewer < session.profile(Setting(1))["items"]
    with pytest.raises(RequestError, match="no items"):
        found_on(families).profile(Setting(1))


def test_a_profile_in_steps_lets_others_take_turns(session: Any, monkeypatch: Any) -> None:
    from persona_probe.playground import session as module

    whole = session.profile(MOVED)
    monkeypatch.setattr(module, "AT_ONCE", 3)
    steps = list(replace(session).profile_in_steps(MOVED))
    assert len(steps) > 2
    assert steps[:-1] == [None] * (len(steps) - 1)
    for row, expected in zip(steps[-1]["dimensions"], whole["dimensions"], strict=True):
        assert row["steered"]["value"] == pytest.approx(expected["steered"]["value"], abs=1e-5)


def test_about_names_everything_that_can_be_set(session: Any) -> None:
    about = session.about()
    assert about["layers"] == [
        {"layer": 0, "personas": ["virtue"]},
        {"layer": 1, "personas": ["virtue", "service"]},
    ]
    assert about["positions"] == "last_prompt_token" in about["schedules"]
    assert [p["title"] for p in about["personas"]] == ["Virtue ethics", "Service"]
    assert {p["colour"] for p in about["personas"]} == {"#009E73", "#CC79A7"}
    families = session.pack.split().evaluate
    asked = {(p.kind, p.text): p.family for p in session.pack.suite.prompts}
    assert about["examples"]
    assert all(asked[example["kind"], example["text"]] in families for example in about["examples"])
    json.dumps(about, allow_nan=False)
