"""The card beside the directions: true, complete, safe to overwrite, and its code runs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.models.residual_model import ResidualModel


@pytest.fixture
def found(planted: Any) -> dict[str, Any]:
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders import finder_named

    finder = finder_named("mean_difference")
    return {
        "virtue": find_directions(
            planted(gap=5.0).activations, finder, "hero", "neutral", persona="virtue"
        )
    }


def saved(directions: Any, folder: Path, **options: Any) -> str:
    from persona_probe.directions.direction_set import save_directions

    save_directions(directions, folder, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_from_what_and_under_which_licence(
    found: dict[str, Any], tmp_path: Path
) -> None:
    text = saved(found, tmp_path, licence="Apache-2.0")
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: persona_probe\n")
    for said in (
        "model: planted (weights 0123456789abcdef)",
        "`prompt_in_H`",
        "finder: mean_difference",
        "`last_prompt_token`",
        "licence: Apache-2.0",
        "| `virtue.safetensors` | hero | neutral | 0 to 2 (3) |",
    ):
        assert said in text
    assert str(tmp_path) not in text


def test_without_a_licence_the_card_claims_none(found: dict[str, Any], tmp_path: Path) -> None:
    text = saved(found, tmp_path)
    assert "license:" not in text
    assert "licence: not stated" in text


def test_the_licence_travels_with_the_file(found: dict[str, Any], tmp_path: Path) -> None:
    from persona_probe.directions.direction_set import load_directions, save_directions

    saved(found, tmp_path / "a", licence="CC-BY-4.0")
    loaded = load_directions(tmp_path / "a")
    save_directions(loaded, tmp_path / "b")
    for name in ("README.md", "virtue.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    several = list(loaded["virtue"].values())
    assert all(direction.licence == "CC-BY-4.0" for direction in several)
    assert (several[0] + several[0]).licence == "CC-BY-4.0"
    assert (several[0] + replace(several[0], licence="MIT")).licence is None


def test_numbers_stand_in_it_with_their_n(
    found: dict[str, Any], planted: Any, tmp_path: Path
) -> None:
    from persona_probe.directions.checks.validation import validate

    held_out = planted(1, prefix="held", gap=5.0).activations
    result = validate(found["virtue"], held_out, permutations=19)
    text = saved(found, tmp_path, validations=[result])
    area = result.rows[1].auroc
    said = f"| virtue | 1 | {area.value:.3f} [{area.low:.3f}, {area.high:.3f}] | 256 | 16 |"
    assert said in text


def test_the_card_speaks_of_all_files_in_the_folder(found: dict[str, Any], tmp_path: Path) -> None:
    saved(found, tmp_path)
    text = saved({"another": found["virtue"]}, tmp_path)
    assert "`virtue.safetensors`" in text
    assert "`another.safetensors`" in text


def test_a_readme_of_somebody_else_is_left_alone(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My thesis\n")
    assert saved(found, tmp_path) == "# My thesis\n"


def test_a_name_cannot_break_the_table(found: dict[str, Any], tmp_path: Path) -> None:
    odd = {site: replace(d, positive_label="a|b\nc") for site, d in found["virtue"].items()}
    line = next(
        line for line in saved({"odd": odd}, tmp_path).splitlines() if "`odd.safetensors`" in line
    )
    assert line.count("|") == 9


def test_the_code_in_the_card_steers_as_the_package_does(
    tiny_model: "ResidualModel", tiny_llama_folder: Path, tmp_path: Path, make_direction: Any
) -> None:
    """The snippet, executed as it stands beside the files, on plain transformers."""
    import os

    import torch
    from transformers import AutoModelForCausalLM

    direction = make_direction(layer=1)
    text = saved({direction.persona: {direction.site: direction}}, tmp_path)
    snippet = text.split("```python\n")[1].split("```")[0]
    assert len(snippet.strip().splitlines()) <= 12
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_folder).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        plain = model(ids).logits
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            exec(snippet, {"model": model})
        finally:
            os.chdir(here)
        steered = model(ids).logits

    def add(output: torch.Tensor) -> torch.Tensor:
        return output + direction.raw

    assert (steered - plain).abs().max() > 0.1
    block = model.get_submodule("model.layers.1")
    block._forward_hooks.clear()
    handle = block.register_forward_hook(lambda *called: add(called[-1]))
    with torch.no_grad():
        expected = model(ids).logits
    handle.remove()
    assert torch.allclose(steered, expected, atol=1e-6)
