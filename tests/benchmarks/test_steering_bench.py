"""The benchmark of steered generation, on a model small enough for a second's test."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model, prompts, vectors and reference, as the benchmark makes them."""
    from benchmarks.steering import prepared

    made, lengths = prepared("cpu", "float32", "tiny", 4, 5, 1, tmp_path_factory.mktemp("bench"))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 1
    return made


@pytest.mark.parametrize("schedule", ["both", "response"])
def test_ours_gives_the_replies_of_the_reference(job: Any, schedule: str) -> None:
    from benchmarks.steering_job import SteeringJob
    from benchmarks.steering_timing import measure

    told = job.of("ours", schedule, 24)
    found = measure(SteeringJob.from_json(told.to_json()))
    assert found["exactness"] == {"replies": 16, "same": 16, "largest_margin": None}
    assert found["ratio"] > 0


@pytest.mark.parametrize("name", ["persona_vectors", "transformer_bridge"])
def test_a_peer_gives_the_replies_of_the_reference(job: Any, name: str) -> None:
    from benchmarks.steering_timing import measure

    found = measure(job.of(name, "both", 2))
    assert found["exactness"] == {"replies": 8, "same": 8, "largest_margin": None}
    assert found["batch"] in found["tried"]


def test_another_text_would_be_noticed(job: Any) -> None:
    """Steering matters here, and the comparison counts tokens."""
    from benchmarks.steerers import steerer_named
    from benchmarks.steering_job import load_setting
    from benchmarks.steering_reference import compared

    prompts, configurations = load_setting(job.of("ours", "both", 24))
    ours = steerer_named("ours")(job.folder, "cpu", "float32")
    replies = ours.run(prompts, configurations, "response", 5, 0)
    found = compared(replies, job.of("ours", "both", 24))
    assert found["same"] < 14
    assert found["largest_margin"] > 1e-3


def test_the_page_says_what_was_reached_and_what_is_missing(job: Any) -> None:
    from benchmarks.steering_table import page

    def measured(ratio: float) -> dict[str, Any]:
        exact = {"replies": 4, "same": 3, "largest_margin": 2e-6}
        return {
            "ratio": ratio,
            "ratios": [ratio],
            "batch": 4,
            "floor_batch": 4,
            "tried": {4: ratio},
            "sequences": 4,
            "exactness": exact,
            "versions": {"torch": "2"},
        }

    results = {
        **dict.fromkeys(["date", "hardware", "dtype", "shape"], "x"),
        **dict.fromkeys(["parameters", "n_layers", "vocabulary", "prompts", "new"], 1),
        **dict.fromkeys(["median", "longest", "peer_configurations"], 1),
        "sites": [1],
        "strengths": [1],
        "methods": {
            "ours": {"both": measured(0.5), "response": measured(0.3)},
            "persona_vectors": {"both": measured(1.2)},
            "repeng": {"both": {"error": "not installed: no network"}},
        },
    }
    text = page(results)
    assert "2.40× faster than the best peer" in text
    assert "at least 2.2 wanted: reached" in text
    assert "at least 3.0 wanted: reached" in text
    assert "not installed: no network" in text
    assert "3 of 4; the others part at a margin of 2.0e-06 at most" in text


def test_what_cannot_be_measured_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from typer import Typer
    from typer.testing import CliRunner

    from benchmarks.steering import main

    app = Typer()
    app.command()(main)
    for words, said in [
        (["--shape", "9b"], "unknown shape '9b'"),
        (["--only", "mine"], "unknown method 'mine'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ]:
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
        assert done.exit_code == 2
        assert said in done.output
