"""The benchmark of reading activations, on a model small enough for a second's test."""

import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Model, conversations and reference, as the benchmark makes them."""
    from benchmarks.capture import _prompts
    from benchmarks.prompts import save
    from benchmarks.reference import write_reference
    from benchmarks.shapes import SHAPES, model_folder

    folder = tmp_path_factory.mktemp("bench") / "tiny"
    model_folder(SHAPES["tiny"], folder, "float32", "cpu")
    prompts = _prompts(folder, 20)
    reference = write_reference(str(folder), prompts[:8], "cpu", folder / "reference.safetensors")
    return {
        "folder": str(folder),
        "prompts": str(save(folder / "prompts.json", prompts)),
        "reference": str(reference),
        "device": "cpu",
        "dtype": "float32",
        "n": 16,
        "tried_on": 8,
        "bare_n": 12,
        "bare_tokens": (256,),
    }


@pytest.mark.parametrize(
    ("method", "batches", "n_sites"),
    [("ours", (0,), 3), ("output_hidden_states", (1, 4), 2)],
)
def test_a_method_is_timed_and_gives_what_the_reference_gives(
    tiny: dict[str, Any], method: str, batches: tuple[int, ...], n_sites: int
) -> None:
    from benchmarks.job import Job
    from benchmarks.timing import measure

    job = Job(method=method, batches=batches, repetitions=2, n_sites=n_sites, **tiny)
    found = measure(Job.from_json(job.to_json()))
    assert len(found["ratios"]) == 2
    assert min(found["ratios"]) > 0
    assert found["batch"] in batches
    # Rounding of float32 over three blocks; another token's residual is off by about one.
    assert found["difference"] < 1e-4
    assert found["root_mean_square"] > 0.1


def test_the_last_hidden_state_of_transformers_is_not_the_residual(tiny: dict[str, Any]) -> None:
    """So the table leaves it out, and a comparison of all sites would notice."""
    from benchmarks.job import Job
    from benchmarks.timing import measure

    job = Job(method="output_hidden_states", batches=(4,), repetitions=1, n_sites=3, **tiny)
    assert measure(job)["difference"] > 0.1


def test_memory_leaves_out_the_results(tiny: dict[str, Any]) -> None:
    from benchmarks.job import Job
    from benchmarks.memory import MIB, measure

    job = Job(method="ours", batches=(0,), repetitions=1, n_sites=2, **tiny)
    found = measure(job)["batches"][0]
    assert found["results_mib"] * MIB == 16 * 2 * 2 * 32 * 4  # prompts, positions, sites, d_model
    assert found["peak_mib"] < 200


def test_the_bare_forward_pass_reads_every_token_and_no_padding(tiny: dict[str, Any]) -> None:
    from benchmarks.bare import rows
    from benchmarks.prompts import load

    prompts = load(Path(tiny["prompts"]))
    batches = rows(prompts, 256)
    read = [token for ids in batches for token in ids.flatten().tolist()]
    assert read == [token for prompt in prompts for token in prompt.ids]
    weighted = sum(len(p) ** 2 for p in prompts) / sum(len(p) for p in prompts)
    assert {ids.shape[1] for ids in batches[:-1]} == {round(weighted)}


@pytest.mark.parametrize("n", [32, 512])
def test_any_beginning_of_the_conversations_has_the_mix_of_all(n: int) -> None:
    from benchmarks.prompts import texts

    lengths = sorted(len(question + reply) for question, reply in texts(n))
    assert 50 <= lengths[n // 2] <= 56
    assert 70 < sum(lengths) / n < 80
    assert lengths[-1] <= 386


def test_peers_are_pinned_and_torch_comes_first() -> None:
    from benchmarks.environments import SHARED, listed
    from benchmarks.methods import ABOUT

    environments = listed()
    assert environments[SHARED][0] == ["torch==2.13.0"]
    words = [word for calls in environments.values() for call in calls for word in call]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", word) for word in words)
    assert {about.environment for about in ABOUT.values()} - {None} == set(environments) - {SHARED}


def test_a_peer_that_does_not_install_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, Any]
) -> None:
    from benchmarks import capture, environments
    from benchmarks.job import Job
    from benchmarks.table import page

    monkeypatch.setattr(capture, "ENVIRONMENTS", tmp_path / "made")
    (tmp_path / "made" / "repeng").mkdir(parents=True)
    (tmp_path / "made" / "repeng" / environments.FAILED).write_text("no such version")
    job = Job(method="repeng", batches=(1,), repetitions=1, n_sites=2, **tiny)
    found = capture._measure(job, n_memory=8)
    assert found == {"error": "not installed: no such version"}
    setting = {
        "date": "2026-01-01",
        "hardware": "a processor",
        "dtype": "float32",
        "shape": "tiny",
        "parameters": 1,
        "n_layers": 3,
        "vocabulary": 512,
        "sites": 3,
        "median": 53,
        "longest": 386,
        "methods": {"repeng": found, "ours": found},
        "bare": {"n": 8, "batches": {"0": {"peak_mib": 1.0}}},
    }
    assert "| repeng `batched_get_hiddens` | not installed: no such version |" in page(setting)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--shape", "7b"], "unknown shape '7b'"),
        (["--only", "ours,theirs"], "unknown method 'theirs'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(options: list[str], said: str) -> None:
    import typer
    from typer.testing import CliRunner

    from benchmarks.capture import main

    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_missing_accelerator_is_refused_in_one_sentence() -> None:
    import torch
    import typer
    from typer.testing import CliRunner

    from benchmarks.capture import main

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--device", "cuda", "--shape", "8b"])
    assert result.exit_code == 2
    assert "no CUDA device" in result.stderr
