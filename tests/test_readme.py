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


def test_the_list_of_commands_is_that_of_the_program() -> None:
    from tests.command_table import command_table

    assert f"```\n{command_table()}\n```" in README, "run: python -m tests.command_table"


def test_every_command_line_of_the_readme_is_understood() -> None:
    """Each is parsed as it stands, up to where the command itself would begin."""
    import shlex

    from typer.main import get_command

    from persona_probe.cli.app import app

    text = README.replace("\\\n", " ")
    lines = re.findall(r"^persona-probe (.+)$", text, flags=re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        command, words = get_command(app), shlex.split(line)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("persona-probe", words, resilient_parsing=False)


def test_every_link_and_picture_of_the_readme_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_folder_of_the_tree_exists_and_none_is_missing() -> None:
    named = set(re.findall(r"[├└]── (\w+)/", README))
    rooms = {path.parent.name for path in (ROOT / "persona_probe").glob("*/__init__.py")}
    assert named == rooms


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 200
