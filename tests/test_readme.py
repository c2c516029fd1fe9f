"""What the README shows is what happens."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_steering_changes_the_reply(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.strip().splitlines()) <= 13
    exec(compile(example, "README.md", "exec"), {})
    before, steered = capsys.readouterr().out.strip().splitlines()
    assert before.startswith("before: ")
    assert steered.startswith("steered: ")
    assert before.split(": ")[1] != steered.split(": ")[1]


def test_every_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from persona_probe.cli.app import app

    named = set(re.findall(r"^persona-probe (\w+)", README, flags=re.MULTILINE))
    assert named == set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_folder_of_the_tree_exists_and_none_is_missing() -> None:
    named = set(re.findall(r"[├└]── (\w+)/", README))
    rooms = {path.parent.name for path in (ROOT / "persona_probe").glob("*/__init__.py")}
    assert named == rooms


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 200
