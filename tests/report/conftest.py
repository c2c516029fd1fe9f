from pathlib import Path

import pytest
from synthetic_run import write_synthetic_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every stage; treat as read-only."""
    return write_synthetic_run(tmp_path_factory.mktemp("runs") / "complete")


@pytest.fixture(scope="session")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete run's report."""
    from persona_probe.report import write_report

    return write_report(run_folder, tmp_path_factory.mktemp("reports") / "complete.html")


@pytest.fixture(scope="session")
def page(report: Path) -> str:
    return report.read_text(encoding="utf-8")
