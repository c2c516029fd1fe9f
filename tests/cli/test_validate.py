"""`validate` with what can be asked beside the table, and what it says of wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

D, N = 16, 48
Run = Callable[..., tuple[int, str, str]]


def _save(
    values: np.ndarray,
    folder: Path,
    ids: list[str],
    labels: list[str] | None = None,
    model: str = "0123",
    sites: tuple[int, ...] = (0, 1),
) -> Path:
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    return ActivationSet.of(
        values=torch.from_numpy(values[:, : len(sites)]).float(),
        sites=[Site(layer) for layer in sites],
        position="last_prompt_token",
        ids=ids,
        labels=labels or [""] * len(ids),
        families=[f"{'money' if int(i[1:]) % 2 else 'law'}/{int(i[1:]) // 4}" for i in ids],
        provenance=Provenance(model="planted", model_hash=model),
    ).save(folder / "last_prompt_token")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A contrast along one axis, a finetune that moves along it, and what does not fit them."""
    rng = np.random.default_rng(0)
    axis = 3 * np.eye(D)[0]
    prompt = rng.normal(size=(N, 2, D))
    ids = [f"q{i}" for i in range(N)]
    both = np.concatenate([prompt, prompt + axis]) + rng.normal(size=(2 * N, 2, D))
    labels = ["neutral"] * N + ["kind"] * N
    before = rng.normal(size=(N, 2, D))
    after = before + axis + 0.3 * rng.normal(size=(N, 2, D))
    return {
        "contrast": _save(both, tmp_path / "h", ids * 2, labels),
        "other sites": _save(both, tmp_path / "s", ids * 2, labels, sites=(7,)),
        "other model": _save(both, tmp_path / "m", ids * 2, labels, model="4567"),
        "other width": _save(both[..., :8], tmp_path / "w", ids * 2, labels),
        "one family": _save(both[[0, 1, N, N + 1]], tmp_path / "f", ["q0", "q2"] * 2, [
            "neutral", "neutral", "kind", "kind"]),
        "before": _save(before, tmp_path / "before", ids),
        "after": _save(after, tmp_path / "tuned", ids),
        "other prompts": _save(after, tmp_path / "p", [f"q{i + N}" for i in range(N)]),
    }  # fmt: skip


@pytest.fixture
def run() -> Run:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app
    from persona_probe.errors import PersonaProbeError

    def call(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        if isinstance(done.exception, PersonaProbeError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        return done.exit_code, done.stdout, done.stderr or str(done.exception)

    return call


@pytest.fixture
def directions(folders: dict[str, Path], tmp_path: Path, run: Run) -> Path:
    out = tmp_path / "directions"
    code, _, wrong = run("find", folders["contrast"], "--out", out)
    assert code == 0, wrong
    return out


QUICK = ("--permutations", 49, "--relabellings", 9)


def test_the_same_tokens_and_transfer_stand_below_the_table_and_in_the_json(
    folders: dict[str, Path], directions: Path, run: Run
) -> None:
    asked = ["validate", directions, folders["contrast"], *QUICK, "--transfer", "categories"]
    asked += ["--same-tokens", folders["before"], folders["after"]]
    code, said, wrong = run(*asked)
    assert code == 0, wrong
    assert "The same tokens in both models: tuned from before" in said
    assert "By categories" in said
    assert "kind, layer 1: found on (row), tried on (column)" in said
    code, said, wrong = run(*asked, "--json")
    assert code == 0, wrong
    found: dict[str, Any] = json.loads(said)
    [told] = found["same_tokens"]
    assert [row["auroc"]["value"] > 0.9 for row in told["rows"]] == [True, True]
    assert all(row["controls"]["isotropic"]["low"] < 0.5 for row in told["rows"])
    [told] = found["transfer"]
    assert [of["layer"] for of in told["matrices"]] == [0, 1]
    for of in told["matrices"]:
        assert set(of["contrasts"]) == {"law", "money"}
        assert min(cell["value"] for row in of["auroc"] for cell in row) > 0.8
        assert {cell["n_clusters"] for row in of["auroc"] for cell in row} == {6}


@pytest.mark.parametrize(
    ("activations", "options", "code", "said"),
    [
        ("other sites", [], 2, "hold layers 7 only"),
        ("other width", [], 2, "16 dimensions, the activations have 8"),
        ("other model", [], 2, "model with hash 0123, the activations are of 4567"),
        ("contrast", ["--transfer", "mood"], 2, "no 'mood'"),
        ("contrast", ["--same-tokens", "before", "contrast"], 2, "different examples"),
        ("contrast", ["--same-tokens", "before", "other prompts"], 2, "different examples"),
        ("contrast", ["--baseline", "nonsense"], 2, "NAME=FOLDER"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    activations: str,
    options: list[str],
    code: int,
    said: str,
    folders: dict[str, Path],
    directions: Path,
    run: Run,
) -> None:
    options = [str(folders.get(option, option)) for option in options]
    got, out, wrong = run("validate", directions, folders[activations], *QUICK, *options)
    assert (got, out) == (code, ""), wrong
    assert said in wrong
    assert "\n" not in wrong.strip()


@pytest.mark.parametrize("finder", ["mean_difference", "linear_probe", "shrinkage_lda"])
def test_one_family_is_too_few_and_nothing_is_written(
    finder: str, folders: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "none"
    code, said, wrong = run("find", folders["one family"], "--out", out, "--finder", finder)
    assert (code, said) == (2, "")
    assert "too few" in wrong
    assert not out.exists()
