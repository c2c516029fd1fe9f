"""Environments for the libraries that are compared with, one each, made from `peers.txt`.

    python -m benchmarks.environments .venv-bench

Every environment sees the packages of `shared` behind its own, so that torch lies on the disk
once. What does not install is left with a file `failed.txt` that says why.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIST = Path(__file__).with_name("peers.txt")
MAKE = Path(__file__).parent.parent / ".ci" / "venv"
SHARED, READY, FAILED = "shared", "ready.txt", "failed.txt"


def listed() -> dict[str, list[list[str]]]:
    """Name of each environment → the requirements of each call of pip, in order."""
    found: dict[str, list[list[str]]] = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].split()
        if words:
            found.setdefault(words[0], []).append(words[1:])
    return found


def interpreter(folder: Path, name: str) -> Path | None:
    """The Python of a finished environment; `None` where it is not installed."""
    made = folder / name
    return made / "bin" / "python" if (made / READY).is_file() else None


def reason(folder: Path, name: str) -> str:
    """Why an environment is not there, in a few words."""
    noted = folder / name / FAILED
    return noted.read_text(encoding="utf-8").strip() if noted.is_file() else "never installed"


def install_all(folder: Path) -> None:
    """Make what is not there yet, or was made from other requirements."""
    environments = listed()
    shared = environments.pop(SHARED)
    if not _install(folder, SHARED, shared, behind=None):
        for name in environments:
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / FAILED).write_text("the shared packages did not install")
        return
    for name, requirements in environments.items():
        _install(folder, name, requirements, behind=folder / SHARED)


def _install(folder: Path, name: str, requirements: list[list[str]], behind: Path | None) -> bool:
    """One environment; whether it is there afterwards."""
    made = folder / name
    wanted = "\n".join(" ".join(words) for words in requirements)
    ready = made / READY
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return True
    sys.stderr.write(f"installing {name} ...\n")
    python = made / "bin" / "python"
    steps: list[Sequence[str | Path]] = [["sh", MAKE, made]]
    for words in requirements:
        steps.append([python, "-m", "pip", "install", "--quiet", *words])
    for step in steps:
        done = _call(step)
        if done.returncode:
            made.mkdir(parents=True, exist_ok=True)
            ready.unlink(missing_ok=True)
            (made / FAILED).write_text(_last_line(done.stderr), encoding="utf-8")
            sys.stderr.write(f"{name} does not install: {_last_line(done.stderr)}\n")
            return False
        if step is steps[0] and behind is not None:
            _see(made, behind)
    (made / FAILED).unlink(missing_ok=True)
    ready.write_text(wanted, encoding="utf-8")
    return True


def _call(step: Sequence[str | Path]) -> "subprocess.CompletedProcess[str]":
    settings = {"PYTHON": sys.executable, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        [str(word) for word in step],
        capture_output=True,
        text=True,
        env={**os.environ, **settings},
        check=False,
    )


def _see(made: Path, behind: Path) -> None:
    """Let one environment find what another holds; its own packages come first."""
    packages = next((behind / "lib").glob("python3*")) / "site-packages"
    own = next((made / "lib").glob("python3*")) / "site-packages"
    (own / "shared.pth").write_text(f"{packages.resolve()}\n", encoding="utf-8")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no reason given"


if __name__ == "__main__":
    install_all(Path(sys.argv[1]))
