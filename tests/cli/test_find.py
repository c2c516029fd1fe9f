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
