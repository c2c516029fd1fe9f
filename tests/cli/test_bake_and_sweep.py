"""Baking, doses and calibration from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from persona_probe.cli.app import app


@pytest.fixture
def directions(make_direction: Any, tmp_path: Path) -> Path:
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.models.site import Site

    found = {"virtue": {Site(layer): make_direction(layer=layer) for layer in (0, 1)}}
    return save_directions(found, tmp_path / "directions")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_bake_writes_a_folder_that_plain_transformers_loads(
    tiny_folders: Path, directions: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    chosen = ["--directions", directions, "--persona", "virtue", "--layer", 1]
    out = tmp_path / "baked"
    done = run(
        "bake", tiny_folders, *chosen, "--operation", "add", "--strength", 0.8,
        "--adapter", "tuned", "--out", out, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["folder"] == str(out)
    assert said["difference"] < 1e-5 < said["effect"]
    baked, plain = (
        AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (out, tiny_folders)
    )
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert not torch.allclose(baked(input_ids=ids).logits, plain(input_ids=ids).logits)
    done = run("bake", tiny_folders, *chosen, "--operation", "ablate", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert "removed from" in done.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--schedule", "response"], "cannot be baked"),
        (["--operation", "clamp:0:1"], "only add and ablate can be baked"),
        (["--operation", "fly"], "no operation 'fly'"),
        (["--layer", "2"], "no direction of 'virtue' at layer 2"),
    ],
)
def test_bake_refuses_in_one_sentence(
    more: list[str], said: str, tiny_llama_folder: Path, directions: Path, tmp_path: Path
) -> None:
    done = run(
        "bake", tiny_llama_folder, "--directions", directions, "--persona", "virtue",
        "--layer", 1, "--out", tmp_path / "o", *more,
    )  # fmt: skip
    assert said in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 2
    assert not (tmp_path / "o").exists()


def test_sweep_calibrates_and_measures_doses(
    tiny_llama_folder: Path, small_pack: Path, directions: Path
) -> None:
    given = ["sweep", tiny_llama_folder, "--directions", directions, "--pack", small_pack,
             "--sites", "0,1", "--adapter", "tuned", "--n", 4, "--schedule", "both",
             "--dose"]  # fmt: skip
    done = run(*given, "--calibrate", "kl=0.0005", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["goal"] == "kl=0.0005"
    for row in found["rows"]:
        assert row["calibration"]["kl"]["value"] == pytest.approx(0.0005, rel=0.02)
        assert row["dose"]["per_token_kl"]["value"] == pytest.approx(0.0005, rel=0.03)
        assert row["dose"]["sites"][0]["layer"] == row["layer"]
    done = run(*given, "--calibrate", "first_token_kl=0.0005")
    assert "the smallest found within 2% of 0.0005 nats" in done.stdout
    done = run(*given, "--strengths", "0,1")
    assert done.exit_code == 0, done.output
    assert "Dose on neutral text" in done.stdout
    assert " 1 (n " in done.stdout
    assert "clusters: 2, and an interval needs 5" in done.stdout
    assert "too few" not in done.stdout
    done = run(*given, "--strengths", "1", "--schedule", "last_prompt_token")
    assert "steered tokens of neutral text are too few" in done.stdout


def test_sweep_takes_operations_and_what_follows_them(
    tiny_llama_folder: Path, small_pack: Path, directions: Path
) -> None:
    given = ["sweep", tiny_llama_folder, "--directions", directions, "--pack", small_pack,
             "--sites", "1", "--adapter", "tuned", "--n", 4, "--schedule", "prompt"]  # fmt: skip
    done = run(*given, "--operation", "ablate", "--act-at", "all", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["operation"], row["strength"]) == ("ablate", None)
    assert row["net"] != row["unsteered"]["net"]
    assert row["refusal_interval"] == [None, None]  # of two prompt families
    done = run(*given, "--operation", "patch:other", "--then", "add virtue:0 strength=2")
    assert done.exit_code == 0, done.output
    assert "patch:other" in done.stdout
    assert "unsteered" in done.stdout
    for more, said in [
        (["--operation", "rotate"], "rotate needs --strengths"),
        (["--strengths", "1", "--calibrate", "kl=0.1"], "leave --strengths out"),
        (["--operation", "ablate", "--strengths", "1"], "ablate has no strength"),
        (["--then", "add virtue"], "cannot read the intervention 'add virtue'"),
        (["--operation", "ablate", "--calibrate", "kl=0.1"], "calibrated with ablate"),
    ]:
        assert said in str(run(*given, *more).exception)


def test_a_goal_that_is_not_met_is_a_line_of_text(
    tiny_llama_folder: Path, small_pack: Path, directions: Path
) -> None:
    given = ["sweep", tiny_llama_folder, "--directions", directions, "--pack", small_pack,
             "--sites", "1", "--n", 4]  # fmt: skip
    done = run(*given, "--calibrate", "kl=50")
    assert done.exit_code == 0, done.output
    assert "virtue, layer 1: direction 'virtue'" in done.stdout
    done = run(*given, "--calibrate", "guards", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert row["strength"] is not None or "passes the guards" in row["reason"]
    done = run(*given, "--calibrate", "kl=0")
    assert "cannot calibrate to 'kl=0'" in str(done.exception)
    done = run(*given, "--calibrate", "norm=3")
    assert "write kl=0.1" in str(done.exception)
