"""`export`, `import` and `show`, as they are typed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction


def call(*arguments: object) -> Result:
    """A command, with errors turned into words and exit codes as `main` does it."""
    from persona_probe.cli.app import app
    from persona_probe.errors import PersonaProbeError

    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, PersonaProbeError):
        done.exit_code = done.exception.exit_code
    elif done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def directions(make_direction: "Callable[..., Direction]", tmp_path: Path) -> Path:
    """A folder with the directions of two personas."""
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.models.site import Site

    made = {
        persona: {
            Site(layer): dataclasses.replace(
                make_direction(layer=layer, seed=seed + layer), persona=persona
            )
            for layer in (0, 1, 2)
        }
        for seed, persona in enumerate(("virtue", "service"))
    }
    return save_directions(made, tmp_path / "directions")


def test_out_and_in_again(directions: Path, tiny_llama_folder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "virtue.gguf", tmp_path / "imported"
    arguments = ["--persona", "virtue", "--layers", "1-2", "--strength", "1", "--unit", "gaps"]
    model = ["--model", tiny_llama_folder]
    done = call(
        "export", directions, "--format", "gguf", *arguments, *model, "--out", file, "--json"
    )
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert about["layers"] == [1, 2]
    assert about["files"] == [str(file)]

    done = call(
        "import", file, "--format", "gguf", "--persona", "virtue", *model, "--out", out, "--json"
    )
    assert done.exit_code == 0, done.output
    assert [row["layer"] for row in json.loads(done.stdout)["directions"]] == [1, 2]

    done = call("show", out, "--json")
    rows = json.loads(done.stdout)["directions"]
    assert [row["gap"] for row in rows] == pytest.approx([3.0, 3.0])
    assert rows[0]["midpoint"] is None
    assert rows[0]["model"] == "tiny-llama"
    assert "sha256" in rows[0]["source"]


def test_show_is_a_table_of_every_direction(directions: Path) -> None:
    done = call("show", directions)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 2 * 3
    assert lines[0].split("  ")[0] == "direction"
    assert "random_isotropic" in lines[1]
    one = call("show", directions / "virtue.safetensors", "--json")
    rows = json.loads(one.stdout)["directions"]
    assert [(row["persona"], row["layer"]) for row in rows] == [
        ("virtue", 0),
        ("virtue", 1),
        ("virtue", 2),
    ]
    assert rows[0]["norm_ratio"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--persona", "vice", "--layer", "1"], "no direction of 'vice'; there are"),
        (["--persona", "virtue"], "say at which layer: --layer or --layers; there are 0, 1, 2"),
        (["--persona", "virtue", "--layer", "7"], "at layer 7; there are 0, 1, 2"),
        (["--persona", "virtue", "--layers", "all"], "cannot express block 0"),
        (["--persona", "virtue", "--layers", "0.2-0.8"], "must be whole numbers"),
        (["--persona", "virtue", "--layer", "1", "--layers", "2"], "not both"),
        (["--persona", "virtue", "--layer", "1", "--unit", "miles"], "choose one of gaps, norms"),
        (["--persona", "virtue", "--layer", "1", "--model", "./gone"], "no such folder: ./gone"),
    ],
)
def test_a_wrong_export_is_exit_code_2_and_writes_nothing(
    options: list[str], said: str, directions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "v.gguf"
    done = call("export", directions, "--format", "gguf", *options, "--out", out)
    assert done.exit_code == 2
    assert said in str(done.exception)
    assert not out.parent.exists()


def test_a_wrong_import_is_exit_code_2_and_writes_nothing(
    directions: Path, tiny_llama_folder: Path, tmp_path: Path
) -> None:
    pickled = tmp_path / "evil.pt"
    pickled.write_bytes(b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins.")
    for arguments, said in [
        ([pickled, "--format", "persona_vectors"], "is a pickle of Python objects"),
        ([pickled, "--format", "magic"], "no format 'magic'"),
        ([tmp_path / "gone.gguf", "--format", "gguf"], "no such file"),
    ]:
        done = call("import", *arguments, "--persona", "virtue", "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert said in str(done.exception)
        assert not (tmp_path / "out").exists()


def test_the_shape_of_a_model_is_read_without_its_weights(
    tiny_folders: Path, tmp_path: Path
) -> None:
    import shutil

    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.shape import shape_of

    shutil.copy(tiny_folders / "config.json", tmp_path)
    shape = shape_of(ModelRef(str(tmp_path)))
    assert (shape.n_layers, shape.d_model) == (3, 32)
    assert shape.model_type in tiny_folders.name.replace("qwen", "qwen2")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="configuration"):
        shape_of(ModelRef(str(tmp_path)))


@pytest.mark.parametrize("command", ["export", "import", "show"])
def test_the_help_has_an_example(command: str) -> None:
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Example: persona-probe {command}" in " ".join(done.output.split())
