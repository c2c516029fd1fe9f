"""`compare` with everything that can be given to it, on planted activations and a real adapter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

D, N = 32, 48
PERSONAS = ("kind", "just")
Run = Callable[..., tuple[int, str, str]]


def _save(values: np.ndarray, folder: Path, labels: list[str], ids: list[str]) -> Path:
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    return ActivationSet.of(
        values=torch.from_numpy(values).float(),
        sites=[Site(0), Site(1)],
        position="last_prompt_token",
        ids=ids,
        labels=labels,
        families=[f"{name.split('-')[0]}-{int(name.split('-')[1]) // 4}" for name in ids],
        provenance=Provenance(model="planted", model_hash="0123"),
    ).save(folder / "last_prompt_token")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Stores of two personas along axes 0 and 1, and of finetunes that move along them."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0].T
    classes = {"neutral": 0 * axes[0], "kind": 3 * axes[0], "just": 3 * axes[1]}
    prompt = rng.normal(size=(N, 2, D))
    values = [prompt + m + 0.7 * rng.normal(size=(N, 2, D)) for m in classes.values()]
    labels = [name for name in classes for _ in range(N)]
    made = {
        "contrast": _save(
            np.concatenate(values), tmp_path / "h", labels, [f"p-{i}" for i in range(N)] * 3
        )
    }
    before = rng.normal(size=(N, 2, D))
    means = {
        "before": 0 * axes[0],
        "narrow-kind-0": 2 * axes[0],
        "narrow-kind-1": 2 * axes[0],
        "narrow-just-0": 2 * axes[1],
        "broad-kind-0": 1.6 * axes[0] + 1.2 * axes[2],
        "placebo-0": axes[3],
    }
    for name, mean in means.items():
        noise = 0.3 * rng.normal(size=before.shape) if name != "before" else 0
        ids = [f"q-{i}" for i in range(N)]
        made[name] = _save(before + mean + noise, tmp_path / name, [""] * N, ids)
    return made


@pytest.fixture
def run() -> Run:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app
    from persona_probe.errors import PersonaProbeError

    def call(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
        if isinstance(done.exception, PersonaProbeError):
            return done.exception.exit_code, "", str(done.exception)
        return done.exit_code, done.stdout, done.stderr

    return call


@pytest.fixture
def directions(folders: dict[str, Path], tmp_path: Path) -> Path:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named
    from persona_probe.personas.splits import split_families

    prompted = ActivationSet.open(folders["contrast"])
    split = split_families(prompted.families, 0)
    found = prompted.where(families=split.find)
    finder = finder_named("mean_difference")
    return save_directions(
        {p: find_directions(found, finder, p, "neutral", split=split) for p in PERSONAS},
        tmp_path / "directions",
    )


def test_one_table_per_question_and_everything_in_the_json(
    folders: dict[str, Path], directions: Path, tmp_path: Path, run: Run
) -> None:
    asked: list[object] = [folders["before"], folders["narrow-kind-0"]]
    asked += ["--directions", directions, "--after", f"broad={folders['broad-kind-0']}"]
    asked += ["--placebo", folders["placebo-0"], "--second-seed", folders["narrow-kind-1"]]
    asked += ["--contrast", folders["contrast"], "--save", tmp_path / "out"]
    asked += ["--unrelated", folders["before"], folders["narrow-kind-1"]]
    code, said, wrong = run(*asked)
    assert code == 0, wrong
    for title in (
        "Did it move along directions",
        "What moved",
        "Do the finetunes move it alike",
        "Does one persona's direction detect another",
        "Does it move unrelated text too",
    ):
        assert title in said
    assert "(floor)" in said
    assert "(ceiling)" in said
    code, said, wrong = run(*asked, "--json")
    assert code == 0, wrong
    found: dict[str, Any] = json.loads(said)
    old = {"rows", "model_diff_reliability", "personas", "cosines", "energy"}
    new = {"after", "finetunes", "cka", "spectra", "pre_existing", "pairs", "angles", "transfer"}
    assert old | new | {"context_free", "saved", "left_out"} <= set(found)
    assert found["after"] == "narrow-kind-0"
    row = next(row for row in found["rows"] if (row["persona"], row["layer"]) == ("kind", 1))
    assert row["cosine"] > 0.8
    assert row["corrected"] > row["cosine"], "the contrast gives reliabilities"
    assert row["floor"]["value"] < 0.5 < row["ceiling"]["value"]
    assert set(found["finetunes"]) == {"narrow-kind-0", "broad", "narrow-kind-1", "placebo-0"}
    assert found["context_free"][0]["share"]["value"] == pytest.approx(1, abs=0.2)
    saved = {path.stem for path in (tmp_path / "out").glob("*.safetensors")}
    assert {"model_diff-broad", "prompt_in_H-kind", "probe-just", "shared"} <= saved


def test_the_survey_shows_all_personas_before_and_after(folders: dict[str, Path], run: Run) -> None:
    asked: list[object] = [folders["before"], folders["narrow-kind-0"], "--survey"]
    asked += ["--contrast", folders["contrast"], "--placebo", folders["placebo-0"]]
    asked += ["--after", f"narrow-just-0={folders['narrow-just-0']}"]
    code, said, wrong = run(*asked)
    assert code == 0, wrong
    assert "All personas before and after" in said
    code, said, wrong = run(*asked, "--json")
    assert code == 0, wrong
    rows = json.loads(said)["survey"]["rows"]
    told = [(row["persona"], row["layer"], row["finetune"]) for row in rows]
    assert told == [
        ("kind", 0, "narrow-kind-0"), ("kind", 1, "narrow-kind-0"),
        ("just", 0, "narrow-just-0"), ("just", 1, "narrow-just-0"),
    ]  # fmt: skip
    for row in rows:
        assert row["auroc"]["value"] > 0.8
        assert row["cosine"]["value"] > 0.6


def test_the_weights_of_a_real_adapter(
    folders: dict[str, Path], directions: Path, tiny_llama_folder: Path, run: Run
) -> None:
    asked: list[object] = [folders["before"], folders["narrow-kind-0"], "--directions", directions]
    adapters = tiny_llama_folder / "adapters"
    asked += ["--adapter-weights", adapters / "tuned", "--model", tiny_llama_folder]
    code, said, wrong = run(*asked, "--before-weights", adapters / "other", "--json")
    assert code == 0, wrong
    weights = json.loads(said)["weights"]
    assert len(weights["rows"]) == 2 * 2 * 2
    assert all(row["reason"] or 0 <= row["top_k_share"] <= 1 for row in weights["rows"])
    assert "Does the adapter write it?" in run(*asked)[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--survey"], "--survey needs --contrast"),
        (["--adapter-weights", "x"], "--adapter-weights needs --directions"),
        (["--after", "broad"], "write NAME=FOLDER"),
        (["--after", "narrow-kind-0=x"], "two finetunes are called 'narrow-kind-0'"),
        (["--directions", "gone"], "gone"),
        (["--contrast", "gone"], "gone"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    options: list[str], said: str, folders: dict[str, Path], run: Run
) -> None:
    code, out, wrong = run(folders["before"], folders["narrow-kind-0"], *options)
    assert code == 2
    assert said in wrong
    assert out == ""


def test_other_prompts_and_one_folder_twice_are_refused(
    folders: dict[str, Path], directions: Path, tmp_path: Path, run: Run
) -> None:
    code, _, wrong = run(folders["before"], folders["contrast"], "--directions", directions)
    assert (code, "different examples" in wrong) == (2, True)
    one = folders["narrow-kind-0"]
    code, _, wrong = run(folders["before"], one, "--after", f"again={one}")
    assert (code, "the same folder" in wrong) == (2, True)
    code, _, wrong = run(folders["before"], folders["before"], "--directions", directions)
    assert (code, "coincide at every site" in wrong) == (1, True)
