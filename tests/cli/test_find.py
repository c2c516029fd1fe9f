"""`persona-probe find`: every finder, its settings, and what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona_probe.directions.finders import FINDERS


@pytest.fixture
def call() -> Callable[..., Any]:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["find", *map(str, arguments)])

    return run


@pytest.fixture
def activations(tmp_path: Path) -> Path:
    """Two personas and neutral, 16 families of 4 questions, two sites."""
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 64, 2, 6))
    values += rng.normal(size=(64, 2, 6))
    values[0, ..., 0] += 4.0
    values[1, ..., 1] += 4.0
    labels = np.repeat(["brave", "kind", "neutral"], 64)
    ActivationSet.of(
        torch.from_numpy(values.reshape(192, 2, 6)),
        (Site(0), Site(3)),
        "last_prompt_token",
        [f"q{i % 64}" for i in range(192)],
        labels.tolist(),
        [f"f{i % 64 // 4}" for i in range(192)],
        Provenance(model="planted", model_hash="0123456789abcdef"),
    ).save(tmp_path / "acts")
    return tmp_path / "acts"


@pytest.mark.parametrize("name", FINDERS)
def test_every_finder_can_be_asked_for(
    name: str, activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.directions.direction_set import load_directions

    out = tmp_path / "out"
    done = call(activations, "--out", out, "--finder", name, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["directions"]
    assert [(row["persona"], row["layer"]) for row in rows] == [
        (persona, layer) for persona in ("brave", "kind") for layer in (0, 3)
    ]
    for row in rows:
        assert row["finder"] == name
        assert row["gap_in_norms"] > 0.1
        lowest = 1.0 - 1e-6 if name == "mean_difference" else 0.8
        assert lowest <= row["cosine_to_mean_difference"] <= 1.0 + 1e-6
    assert json.loads((out / "found.json").read_text()) == rows
    assert set(load_directions(out)) == {"brave", "kind"}
    assert name in " ".join(call("--help").output.split())


def test_nuisances_and_penalties_are_options(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.directions.direction_set import load_directions

    first, second = tmp_path / "first", tmp_path / "second"
    assert call(activations, "--out", first, "--positive", "kind").exit_code == 0
    wanted = ["--positive", "brave", "--finder", "linear_probe", "--c", "auto"]
    done = call(activations, "--out", second, *wanted, "--orthogonal-to", f"{first}:kind")
    assert done.exit_code == 0, done.output
    assert "cosine to mean difference" in done.stdout
    kind, brave = load_directions(first)["kind"], load_directions(second)["brave"]
    for site, direction in brave.items():
        assert direction.finder == "linear_probe orthogonal to kind"
        assert abs(direction.cosine(kind[site])) < 1e-5
        assert direction.unit[0] > 0.8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--finder", "magic"], "no finder 'magic'; choose one of mean_difference"),
        (["--c", "0.1"], "has no setting 'c'; only linear_probe has"),
        (["--finder", "linear_probe", "--c", "-1"], "neither a positive number nor auto"),
        (["--finder", "linear_probe", "--c", "some"], "neither a positive number nor auto"),
        (["--orthogonal-to", "refusal"], "write FOLDER:PERSONA"),
        (["--negative", "villain"], "no example is labelled 'villain'"),
    ],
)
def test_a_wrong_request_is_refused_and_nothing_is_written(
    options: list[str], said: str, activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.errors import RequestError

    done = call(activations, "--out", tmp_path / "out", *options)
    assert isinstance(done.exception, RequestError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_shared_and_own_parts_lie_beside_the_directions_and_add_up(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.directions.direction_set import load_directions

    done = call(activations, "--out", tmp_path / "out", "--json")
    found, parts = load_directions(tmp_path / "out"), load_directions(tmp_path / "out/parts")
    assert set(parts) == {"shared", "specific-brave", "specific-kind"}
    for persona, by_site in found.items():
        for site, direction in by_site.items():
            whole = parts["shared"][site].raw + parts[f"specific-{persona}"][site].raw
            assert whole.numpy() == pytest.approx(direction.raw.numpy(), abs=1e-4)
    for row in json.loads(done.stdout)["directions"]:
        # Two orthogonal directions of equal length: half of each is its own.
        assert row["own_share"] == pytest.approx(0.5, abs=0.1)
        ends = row["own_share_without_noise"]
        assert ends["low"] < 0.5 < ends["high"]
        assert row["split_hash"]
        assert (row["family"], row["position"]) == ("prompt_in_H", "last_prompt_token")
        assert row["model_hash"] == "0123456789abcdef"
    text = call(activations, "--out", tmp_path / "out").stdout
    assert "own part (without noise)" in text


def moved(activations: Path, state: str, axis: int) -> Path:
    """A finetune that moves every example along one axis."""
    from persona_probe.activations.activation_set import ActivationSet

    before = ActivationSet.open(activations)
    values = before.values.clone()
    values[..., axis] += 3.0
    folder = activations.parent / state / "last_prompt_token"
    before.with_values(values).save(folder)
    return folder


def test_the_family_of_weight_changes_has_one_direction_per_finetune(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.directions.direction_set import load_directions

    folders = [moved(activations, name, axis) for name, axis in (("narrow", 2), ("broad", 3))]
    after = [part for folder in folders for part in ("--after", folder)]
    asked = activations, "--out", tmp_path / "out", "--family", "model_diff"
    done = call(*asked, *after)
    assert done.exit_code == 0, done.stderr
    found = load_directions(tmp_path / "out")
    for name, axis in (("narrow", 2), ("broad", 3)):
        for direction in found[name].values():
            assert direction.family == "model_diff"
            assert int(direction.unit.argmax()) == axis
            assert float(direction.unit[axis]) == pytest.approx(1.0, abs=1e-4)
    for arguments, said in (
        (asked, "model_diff needs the activations of a finetune"),
        ((*asked, *after[:2], *after[:2]), "two finetunes are called 'narrow'"),
        ((*asked[:3], *after), "only model_diff compares two models"),
        ((*asked[:4], "resp_in_H"), "do not say who wrote them; extract with --crossed"),
        ((*asked[:4], "nonsense"), "no family 'nonsense'; choose one of model_diff"),
    ):
        refused = call(*arguments)
        assert refused.exit_code != 0
        assert said in str(refused.exception or refused.output)


def test_replies_of_two_writers_are_told_apart_by_who_wrote_them(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from dataclasses import replace

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.direction_set import load_directions

    read = ActivationSet.open(activations)
    writers = ["narrow" if label == "brave" else "helpful-only" for label in read.labels]
    kept = [i for i, label in enumerate(read.labels) if label != "kind"]
    ids = tuple(f"{name}@{writer}" for name, writer in zip(read.ids, writers, strict=True))
    about = tuple({"written_by": writer} for writer in writers)
    crossed = replace(read, ids=ids, metadata=about, labels=("",) * len(read)).take(kept)
    crossed.save(tmp_path / "crossed")
    asked = tmp_path / "crossed", "--out", tmp_path / "out", "--family", "resp_in_H"
    done = call(*asked, "--negative", "helpful-only")
    assert done.exit_code == 0, done.stderr
    found = load_directions(tmp_path / "out")
    assert list(found) == ["narrow"]
    for direction in found["narrow"].values():
        assert int(direction.unit.abs().argmax()) == 0
        assert direction.family == "resp_in_H"
    refused = call(*asked)
    assert "no example is labelled 'neutral'; the labels are" in str(refused.exception)


def test_the_probe_family_uses_a_probe_if_nothing_else_is_asked_for(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    done = call(activations, "--out", tmp_path / "out", "--family", "probe", "--json")
    told = json.loads(done.stdout)
    assert (told["family"], told["finder"]) == ("probe", "linear_probe")
    assert {row["own_share_without_noise"] for row in told["directions"]} == {None}


def test_one_prompt_family_is_too_few_to_find_on_and_to_judge_by(
    activations: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    from persona_probe.activations.activation_set import ActivationSet

    ActivationSet.open(activations).where(families={"f0"}).save(tmp_path / "few")
    refused = call(tmp_path / "few", "--out", tmp_path / "out")
    assert "1 prompt family is too few" in str(refused.exception)
    assert not (tmp_path / "out").exists()
