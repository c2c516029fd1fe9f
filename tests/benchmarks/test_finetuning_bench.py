"""The benchmark of finetuning, on a model small enough for a second's test; and on a GPU."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def run(out: Path, *options: str) -> dict[str, Any]:
    from benchmarks.finetuning import main

    main([*options, "--models", str(out.parent), "--out", str(out)])
    found: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    return found | {"page": out.with_suffix(".md").read_text()}


def test_every_way_is_timed_and_learns_the_same(tmp_path: Path) -> None:
    from benchmarks.finetuning import WAYS

    sizes = ["--steps", "4", "--tokens", "32", "--batch-size", "2", "--rank", "2"]
    found = run(tmp_path / "finetuning", "--shape", "tiny", *sizes)
    assert [row["way"] for row in found["rows"]] == list(WAYS)
    first = found["rows"][0]
    for row in found["rows"]:
        assert row["steps"] == 2
        assert 0 < row["least"] <= row["tokens_per_second"] <= row["most"]
        assert row["loss"] == pytest.approx(first["loss"], rel=1e-4)  # one layout, three costs
        assert row["peak_gib"] is None
        assert row["way"] in found["page"]
    assert found["hardware"]
    assert found["hardware"] in found["page"]


def test_a_step_holds_no_padding_and_learns_most_of_it() -> None:
    from benchmarks.finetuning import examples_of
    from benchmarks.shapes import _byte_tokenizer

    examples = examples_of(_byte_tokenizer(), 3, 40)
    assert {len(e.ids) for e in examples} == {40}
    assert len({tuple(e.ids) for e in examples}) == 3
    for each in examples:
        assert not any(each.learnt[: each.prompt_length])
        assert sum(each.learnt) == 40 - each.prompt_length > 20


def test_a_step_that_counts_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "none", "--shape", "tiny", "--steps", "2")


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_an_8b_shaped_model_finetunes_in_bfloat16_within_memory(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    wanted = ["--device", "cuda", "--dtype", "bfloat16", "--shape", "8b"]
    found = run(tmp_path / "finetuning", *wanted, "--steps", "6")
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    assert "GiB" in found["hardware"]
    leanest = found["rows"][-1]
    assert leanest["peak_gib"] < total
    assert leanest["tokens_per_second"] > 0
