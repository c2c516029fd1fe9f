"""Two real processes under `accelerate launch`, on processors: the same weights as one process."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LAUNCHED = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0", "-m"),
]
ALONE = [sys.executable, "-m"]


@pytest.fixture
def command(tiny_llama_folder, talks, tmp_path):
    """A finetune as it is typed, by one process or by two; options win over the usual ones."""
    from persona_probe.files import write_jsonl

    rows = [
        {"id": c.id, "messages": [{"role": m.role, "content": m.content} for m in c.messages]}
        for c in talks
    ]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("rank = 4\nepochs = 2\nlearning_rate = 0.01\ntargets = ['v_proj']\n")

    def run(launcher, out, *options, folder=tiny_llama_folder, kind="sft"):
        words = ["persona_probe", "finetune", kind, folder, *([data] if kind == "sft" else [])]
        words += ["--out", out, "--recipe", recipe, "--device", "cpu", *options, "--json"]
        return subprocess.run(
            [*launcher, *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )

    return run


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(layout, command, tmp_path):
    from persona_probe.files import read_jsonl
    from persona_probe.finetuning.lora import read_factors

    how = ["--adapter", "tuned"] + (["--packing"] if layout == "packed" else [])
    both = command(LAUNCHED, tmp_path / "two", "--batch-size", 2, *how)
    assert both.returncode == 0, both.stderr
    one = command(ALONE, tmp_path / "one", "--batch-size", 4, *how)
    assert one.returncode == 0, one.stderr
    [line] = [text for text in both.stdout.splitlines() if text.startswith("{")]  # said once
    told = json.loads(line)
    assert (told["processes"], told["outcome"]["steps"]) == (2, 6)
    found, expected = (read_factors(tmp_path / name) for name in ("two", "one"))
    assert found.keys() == expected.keys()
    for name, (a, b) in expected.items():
        assert (b - found[name][1]).abs().max() < 1e-5
        assert (a - found[name][0]).abs().max() < 1e-5
    assert max(float(b.abs().max()) for _, b in expected.values()) > 1e-2
    losses = [[r["loss"] for r in read_jsonl(tmp_path / n / "log.jsonl")] for n in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_samples_are_not_written_by_several_processes(command, tmp_path):
    wrong = command(
        LAUNCHED,
        tmp_path / "two",
        "--constitution",
        "virtue",
        folder="organism",
        kind="constitution",
    )
    assert wrong.returncode != 0
    assert "then launch `finetune sft` on them" in wrong.stderr
    assert not (tmp_path / "two").exists()
