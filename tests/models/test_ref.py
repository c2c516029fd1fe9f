from pathlib import Path

import pytest


def test_a_folder_lists_its_adapters_and_finds_them_by_name(tiny_llama_folder: Path) -> None:
    from persona_probe.models.ref import ModelRef

    ref = ModelRef(str(tiny_llama_folder))
    assert ref.adapters() == ("other", "tuned")
    assert ref.adapter_source("tuned") == (tiny_llama_folder / "adapters" / "tuned").resolve()


def test_an_adapter_may_be_a_folder_or_a_hub_name(
    tiny_llama_folder: Path, tiny_qwen_folder: Path
) -> None:
    from persona_probe.models.ref import ModelRef

    ref = ModelRef(str(tiny_llama_folder))
    elsewhere = tiny_qwen_folder / "adapters" / "tuned"
    assert ref.adapter_source(str(elsewhere)) == elsewhere.resolve()
    assert ref.adapter_source("someone/some-lora") == "someone/some-lora"


def test_an_unknown_adapter_names_the_choices(tiny_llama_folder: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef

    with pytest.raises(RequestError, match=r"no adapter 'tund'.*other, tuned"):
        ModelRef(str(tiny_llama_folder)).adapter_source("tund")


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "a/b/c", "runs/"])
def test_a_path_without_a_folder_is_not_taken_for_a_hub_name(name: str) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef

    with pytest.raises(RequestError, match="no such folder"):
        _ = ModelRef(name).folder


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.models.ref import ModelRef

    (tmp_path / "model.bin").touch()
    with pytest.raises(RequestError, match="is a file"):
        _ = ModelRef(str(tmp_path / "model.bin")).folder


def test_slug_is_a_file_name_and_keeps_before_and_after_apart(tiny_llama_folder: Path) -> None:
    from persona_probe.models.ref import ModelRef

    before = ModelRef("Qwen/Qwen2.5-1.5B", revision="main")
    assert before.slug == "Qwen-Qwen2.5-1.5B+main"
    assert before.with_adapter("a/b").slug != before.slug
    assert ModelRef(str(tiny_llama_folder), adapter="tuned").slug == "tiny-llama+tuned"
