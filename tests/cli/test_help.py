"""The command line before anything heavy is loaded: fast help, examples, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    ["extract"],
    ["find"],
    ["validate"],
    ["compare"],
    ["show"],
    ["export"],
    ["import"],
    ["steer"],
    ["sweep"],
    ["chat"],
    ["playground"],
    ["bake"],
    ["evaluate"],
    ["judge"],
    ["pack", "show"],
    ["pack", "audit"],
    ["flag"],
    ["constitution", "show"],
    ["constitution", "samples"],
    ["constitution", "audit"],
    ["finetune", "constitution"],
    ["finetune", "sft"],
    ["finetune", "helpful-only"],
    ["study", "run"],
    ["report"],
    ["organism", "build"],
    ["organism", "bars"],
    ["doctor"],
]
HEAVY = (
    "torch",
    "starlette",
    "transformers",
    "transformer_lens",
    "sklearn",
    "plotly",
    "scipy",
    "pandas",
)


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "persona_probe", *arguments]
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd=cwd
    )


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert call("--version").stdout == version("persona-probe") + "\n"


def test_help_needs_less_than_half_a_second_of_processor_time() -> None:
    """Processor time, which a busy machine does not stretch."""
    before = os.times()
    done = call("--help")
    after = os.times()
    used = after.children_user + after.children_system
    assert done.returncode == 0
    assert used - before.children_user - before.children_system < 0.5


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys; sys.argv = ['persona-probe', '--help']\n"
        "from persona_probe.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(command: list[str]) -> None:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert f"Example: persona-probe {' '.join(command)}" in " ".join(done.output.split())


def test_the_help_names_every_command() -> None:
    text = call("--help").stdout
    assert all(command[0] in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "no-such-run"], "no-such-run"),
        (["steer", "m", "hi", "--directions", "gone", "--persona", "p", "--layer", "1"], "gone"),
        (["evaluate", "./nowhere"], "no such folder: ./nowhere"),
        (["evaluate", "organism", "--pack", "nowhere"], "no pack 'nowhere'"),
        (["evaluate", "organism", "--category", "gossip"], "no harm category 'gossip'"),
        (["evaluate", "organism", "--adapter", "none-such"], "no adapter 'none-such'"),
        (["sweep", "organism", "--directions", "d", "--strengths", "1,x"], "--strengths '1,x'"),
        (["extract", "organism", "missing.jsonl", "--out", "o"], "no such file: missing.jsonl"),
        (["find", "gone", "--out", "o", "--finder", "magic"], "gone"),
        (["extract", "organism"], "PROMPTS"),
        (["fly"], "fly"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_wrong_request_gets_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
