"""Commands as a user calls them, with their result parsed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call() -> Call:
    """Run a command with --json; what it printed on standard output, parsed."""
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    def run(*arguments: object) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        parsed: dict[str, Any] = json.loads(done.stdout)
        return parsed

    return run
