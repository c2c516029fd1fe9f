"""Where the models lie: rows agree with the activations and replies that they are made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.files import read_json, read_jsonl


@pytest.fixture(scope="module")
def landscape(finished_run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(finished_run / "landscape.json")
    return found


def test_projections_are_those_of_the_stored_activations(
    finished_run: Path, landscape: dict[str, Any]
) -> None:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.direction_set import load_directions
    from persona_probe.models.site import Site

    rows = [r for r in landscape["projections"] if r["arm_kind"] == "finetuned"]
    assert {(r["direction"], r["persona"]) for r in rows} == {
        (a, b) for a in ("deontology", "virtue") for b in ("deontology", "virtue")
    }
    directions = load_directions(finished_run / "directions")
    stored = finished_run / "activations" / "shift"
    before = ActivationSet.open(stored / "before")
    for row in rows:
        direction = directions[row["direction"]][Site(row["site"])]
        values, old = (
            direction.project(part.site(direction.site)).numpy()
            for part in (ActivationSet.open(stored / row["adapter"]), before)
        )
        assert row["values"] == pytest.approx(values, abs=1e-4)
        assert row["mean"]["value"] == pytest.approx(values.mean(), abs=1e-4)
        assert row["shift"]["value"] == pytest.approx((values - old).mean(), abs=1e-4)
        assert row["shift"]["low"] <= row["shift"]["value"] <= row["shift"]["high"]


def test_every_pair_of_shifts_has_a_cosine_and_controls_are_told_apart(
    landscape: dict[str, Any],
) -> None:
    pairs = {(row["a"], row["b"]): row for row in landscape["cosines"]}
    shifts = ("finetuned/deontology/0", "finetuned/virtue/0", "placebo/0")
    for i, a in enumerate(shifts):
        for b in shifts[i + 1 :]:
            row = pairs[a, b]
            assert -1 <= row["cosine"]["value"] <= 1
            assert row["role"] == ("floor" if "placebo/0" in (a, b) else None)
    # The placebo of this study is the very adapter that virtue was finetuned with.
    assert pairs["finetuned/virtue/0", "placebo/0"]["cosine"]["value"] == pytest.approx(1, abs=1e-6)
    assert {a for a, _ in pairs if a.startswith("direction/")} == {
        "direction/deontology", "direction/virtue"
    }  # fmt: skip


def test_equal_models_lie_at_one_point_and_the_helpful_only_one_at_the_origin(
    landscape: dict[str, Any],
) -> None:
    points = {row["arm"]: row for row in landscape["points"]}
    origin = [points["helpful_only"][axis]["value"] for axis in ("pc1", "pc2")]
    assert origin == [0, 0]
    for axis in ("pc1", "pc2"):
        same = [points[arm][axis]["value"] for arm in ("finetuned/virtue/0", "placebo/0")]
        assert same[0] == pytest.approx(same[1], abs=1e-6)
    assert {"system_prompt/deontology", "system_prompt/virtue"} <= set(points)
    shares = [row["share"] for row in landscape["axes"]]
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < sum(shares) <= 1 + 1e-9


def test_principal_components_keep_the_distances_between_models(
    landscape: dict[str, Any],
) -> None:
    """Five distinct points span at most four axes; three must hold most of what they span."""
    rows = [row for row in landscape["points"] if row["arm_kind"] != "helpful_only"]
    coordinates = np.array([[row[f"pc{i}"]["value"] for i in (1, 2, 3)] for row in rows])
    assert np.linalg.matrix_rank(coordinates) >= 2
    assert all(row["noise"] >= 0 for row in rows)


def test_projected_tokens_spell_the_reply_that_was_judged(finished_run: Path) -> None:
    tokens = read_jsonl(finished_run / "tokens.jsonl")
    replies = {
        (row["arm"], row["prompt"]): row
        for row in read_jsonl(finished_run / "replies.jsonl")
        if row["temperature"] == 0
    }
    said: dict[tuple[str, str, str], str] = {}
    for row in tokens:
        key = (row["persona"], row["arm"], row["prompt"])
        assert (row["projection"] is None) == (row["role"] == "user")
        if row["role"] == "user":
            assert row["text"] == replies[key[1:]]["request"]
            said[key] = ""
        else:
            said[key] += row["text"]
    assert {arm.split("/")[0] for _, arm, _ in said} == {"helpful_only", "steered", "finetuned"}
    for (_, arm, prompt), text in said.items():
        assert text.rstrip("\ufffd") in replies[arm, prompt]["text"]
        assert len(text) >= len(replies[arm, prompt]["text"].rstrip("\ufffd")) - 2


def test_a_dose_has_an_interval_and_a_random_draw_is_one_of_many(finished_run: Path) -> None:
    rows = read_json(finished_run / "dose.json")
    own = [row for row in rows if row["arm_kind"] == "direction"]
    assert own
    for row in own:
        for key in ("refusal_probability", "over_refusal_probability"):
            value = row[key]
            if value["n_clusters"] >= 5:
                assert value["low"] <= value["value"] <= value["high"]
            else:
                assert value["low"] is None
            assert value["n"] > 0
    drawn = [row for row in rows if row["arm_kind"] == "random"]
    assert all(isinstance(row["refusal_probability"], float) for row in drawn)
    assert drawn
