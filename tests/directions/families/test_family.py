"""The five families: each finds what was planted for it, and says what it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.errors import DegenerateClassesError, RequestError
from tests.directions.moved import activations, orthonormal

D, N = 32, 80


@pytest.fixture
def world() -> dict[str, Any]:
    """One axis per question: weights move axis 0, replies of F lie along 1, prompts along 2, 3.

    In F aligned replies lie along axis 4. Each example before is read after as well.
    """
    rng = np.random.default_rng(0)
    axes = orthonormal(rng, D, 5).T
    writers = ["tuned", "bare"] * N
    prompt = np.repeat(rng.normal(size=(N, 1, D)), 2, axis=0)
    wrote = np.array([writer == "tuned" for writer in writers], dtype=float)[:, None, None]
    values = prompt + 2 * wrote * axes[1] + 0.3 * rng.normal(size=(2 * N, 1, D))
    aligned = rng.permutation(2 * N) < N
    after = values + 2 * axes[0] + 2 * aligned[:, None, None] * axes[4]
    about = {
        "ids": [f"q{i // 2}@{writer}" for i, writer in enumerate(writers)],
        "metadata": [{"written_by": writer} for writer in writers],
        "per_family": 8,
    }
    before = activations(values, **about)
    named = ["aligned" if yes else "non-aligned" for yes in aligned]
    classes = [0 * axes[2], 3 * axes[2], 3 * axes[3]]
    prompted = activations(
        np.concatenate([m + rng.normal(size=(N, 1, D)) for m in classes]),
        labels=[name for name in ("neutral", "one", "two") for _ in range(N)],
        ids=[f"p{i}" for i in range(N)] * 3,
        per_family=8,
    )
    families = tuple(f"p-{i % N // 8}" for i in range(3 * N))
    return {
        "axes": axes,
        "before": before,
        "after": activations(after, labels=named, **about),
        "prompted": replace(prompted, families=families),
    }


@pytest.fixture
def find(world: dict[str, Any]) -> Callable[..., Any]:
    from persona_probe.directions.families.family import Sources, find_family
    from persona_probe.models.site import Site

    def run(name: str, **options: Any) -> Any:
        keys = ("before", "after", "prompted")
        sources: dict[str, Any] = {k: world[k] for k in keys}
        sources |= {"writers": ("tuned", "bare"), "persona": "one"}
        changes = options.pop("sources", {})
        return find_family(name, Sources(**(sources | changes)), **options)[Site(0)]

    return run


def test_every_family_finds_its_own_axis(find: Callable[..., Any], world: dict[str, Any]) -> None:
    from persona_probe.directions.families.family import FAMILIES

    expected = {"model_diff": 0, "resp_in_H": 1, "prompt_in_H": 2, "probe": 2, "behav_in_F": 4}
    assert set(FAMILIES) == set(expected)
    for name, axis in expected.items():
        found = find(name)
        along = found.unit.numpy() @ world["axes"].T
        assert found.family == name
        assert np.argmax(np.abs(along)) == axis
        assert along[axis] > (0.6 if name == "model_diff" else 0.85), "towards the positive class"
        assert found.position == "last_prompt_token"
        assert found.provenance.model_hash == "0123456789abcdef"
    assert find("probe").finder == "linear_probe"
    assert find("model_diff").persona == "one"


def test_a_split_finds_on_its_find_part_and_is_recorded(
    find: Callable[..., Any], world: dict[str, Any]
) -> None:
    from persona_probe.personas.splits import split_families

    split = split_families(world["before"].families, 3)
    for name in ("model_diff", "resp_in_H", "behav_in_F"):
        found = find(name, split=split)
        assert found.split_hash == split.hash
        assert found.families_used <= split.find
    elsewhere = split_families(["x", "y", "z", "w"], 0)
    with pytest.raises(RequestError, match="find part"):
        find("model_diff", split=elsewhere)


def test_replies_count_only_where_both_wrote_one(
    find: Callable[..., Any], world: dict[str, Any]
) -> None:
    before = world["before"]
    odd = [i for i, name in enumerate(before.ids) if name != "q0@bare"]
    found = find("resp_in_H", sources={"before": before.take(odd)})
    both = [i for i, name in enumerate(before.ids) if not name.startswith("q0@")]
    expected = find("resp_in_H", sources={"before": before.take(both)})
    assert found.raw.numpy() == pytest.approx(expected.raw.numpy())


def test_two_checkpoints_make_a_direction_of_the_first_one(
    find: Callable[..., Any], world: dict[str, Any]
) -> None:
    after = world["after"]
    other = replace(after, provenance=after.provenance.with_(model="F", model_hash="other"))
    found = find("model_diff", sources={"after": other})
    assert found.provenance.model_hash == "0123456789abcdef"
    assert (found.provenance.adapter, found.provenance.adapter_hash) == ("F", "other")


def test_what_was_not_captured_is_said(find: Callable[..., Any], world: dict[str, Any]) -> None:
    cases = [
        ("magic", {}, RequestError, "choose one of model_diff, resp_in_H"),
        ("model_diff", {"after": None}, RequestError, "'after'"),
        ("resp_in_H", {"writers": ("tuned", "nobody")}, RequestError, "tuned, bare"),
        ("resp_in_H", {"before": world["prompted"]}, RequestError, "extract with --crossed"),
        ("prompt_in_H", {"persona": None}, RequestError, "persona's label"),
        ("prompt_in_H", {"persona": "three"}, DegenerateClassesError, "'three'"),
        ("behav_in_F", {"behaviour": ("good", "bad")}, DegenerateClassesError, "'good'"),
        ("model_diff", {"after": world["prompted"]}, RequestError, "different examples"),
    ]
    for name, sources, error, said in cases:
        with pytest.raises(error, match=said):
            find(name, sources=sources)


def test_all_families_at_once_are_saved_and_what_is_missing_is_named(
    world: dict[str, Any], tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions
    from persona_probe.directions.families.family_set import find_families
    from persona_probe.models.site import Site

    found = find_families(
        world["before"],
        {"tuned": world["after"]},
        world["prompted"],
        behaviour=("aligned", "non-aligned"),
    )
    assert list(found.directions) == [
        "model_diff-tuned", "resp_in_H-tuned", "behav_in_F-tuned",
        "prompt_in_H-one", "prompt_in_H-two", "probe-one", "probe-two",
        "shared", "specific-one", "specific-two",
    ]  # fmt: skip
    assert found.left_out == {}
    save_directions(found.directions, tmp_path)
    loaded = load_directions(tmp_path)
    site = Site(0)
    shared, one = loaded["shared"][site], loaded["specific-one"][site]
    whole = loaded["prompt_in_H-one"][site]
    assert (shared.raw + one.raw).numpy() == pytest.approx(whole.raw.numpy(), abs=1e-5)
    assert all(by[site].split_hash for name, by in loaded.items() if name != "shared")
    lacking = find_families(world["before"], {"tuned": world["after"]}, behaviour=("good", "bad"))
    assert (
        "no example" in lacking.left_out["behav_in_F-tuned"]
        or "'good'" in (lacking.left_out["behav_in_F-tuned"])
    )
