"""The notebooks run from top to bottom, say what they said, and read well where they are kept.

All are executed once, two kernels at a time; the assertions are about what they found, not about
digits.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
LARGEST = 1_000_000  # bytes
MACHINE = re.compile(r"/(?:work|home|root|tmp|Users|usr|opt|var)/|[A-Z]:\\\\|\.venv")


def _execution() -> Any:
    spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(notebook: Any) -> str:
    """All that its cells printed or showed, tables as text."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            shown = data.get("text/html") or data.get("text/plain", "")
            texts.append(output.get("text") or re.sub(r"<[^>]+>", " ", shown))
    return "\n".join(texts)


def kept(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_there_are_seven() -> None:
    assert [int(name.split("_")[0]) for name in NAMES] == list(range(1, 8))


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_notebook_is_small_and_names_no_machine(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    notebook = kept(name)
    nbformat.validate(notebook)
    everything = [cell.source for cell in notebook.cells] + [said(notebook)]
    for text in everything:
        assert MACHINE.search(text) is None, MACHINE.search(text)


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_notebook_was_run_from_top_to_bottom_without_error(name: str) -> None:
    code = [cell for cell in kept(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_also_a_picture(name: str) -> None:
    for data in _execution().figures(kept(name)):
        assert data["image/png"].startswith("iVBOR")
        assert "cdn" not in json.dumps(data["application/vnd.plotly.v1+json"])


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for cell in (cell for cell in kept(name).cells if cell.cell_type == "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert target.startswith("http") or (NOTEBOOKS / target).exists()


def test_the_quickstart_has_ten_cells() -> None:
    assert sum(cell.cell_type == "code" for cell in kept("1_quickstart").cells) == 10


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    """Every notebook as it comes out now, by name."""
    folder = tmp_path_factory.mktemp("executed")

    def run(name: str) -> Any:
        command = [sys.executable, str(NOTEBOOKS / "execute.py"), name, "--into", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return nbformat.read(folder / f"{name}.ipynb", as_version=4)

    # The longest one first.
    names = sorted(NAMES, key=lambda name: name != "5_study")
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        return {name: pool.submit(run, name) for name in names}


def numbers(pattern: str, text: str) -> list[float]:
    return [float(match) for match in re.findall(pattern, text)]


def quickstart(text: str) -> None:
    assert text.count("refuse ") >= 4, "the steered model declines what it never saw"
    own, *others = (numbers(rf"{p} +(-?\d\.\d+)", text)[-1] for p in ("virtue", "deontology"))
    assert own > 0.5 > others[0]
    assert "cosine with what was saved: 1.0" in text


def before_and_after(text: str) -> None:
    found = dict(re.findall(r"^(\w+) +cosine (-?\d\.\d+)", text, flags=re.MULTILINE))
    assert max(found, key=lambda name: float(found[name])) == "virtue"
    assert "Comparison: directions with the shift of finetuning" in text


def directions(text: str) -> None:
    assert len(re.findall(r"^(?:find|select|evaluate) +\d+ examples", text, re.MULTILINE)) == 3
    assert numbers(r"held-out AUROC +(\d\.\d+)", text)[0] > 0.9
    assert "surface" in text
    assert "validate it on held-out families" in text
    (largest,) = numbers(r"largest of 20 (\d\.\d+)", text)
    assert largest < 0.9


def steering(text: str) -> None:
    replies = dict(re.findall(r"^ *([+-][\d.]+)  ([A-Z].*)$", text, flags=re.MULTILINE))
    assert replies["+0"] == replies["-1"] != replies["+1"]
    costs = numbers(r"first token (\d\.\d+)", text)
    assert costs == sorted(costs)
    (cost,) = numbers(r"costs (\d\.\d+)", text)
    assert cost == pytest.approx(0.1, abs=0.02)


def study(text: str) -> None:
    for persona in ("virtue", "service"):
        assert re.search(rf"^{persona}$", text, flags=re.MULTILINE)
    assert text.count("L0 yes detected") == 2
    assert len(re.findall(r"^  L\d ", text, flags=re.MULTILINE)) == 16
    assert "report.html" in text
    assert "['service.safetensors', 'virtue.safetensors']" in text


def your_own(text: str) -> None:
    assert "Validation: gardener" in text
    assert "surface" in text, "a model that knows nothing"
    assert max(numbers(r"option mass (\d\.\d+)", text)) < 0.05


def interchange(text: str) -> None:
    assert text.count("read") >= 13
    assert "cosine with the original: 1.0" in text
    plain, ours, unsteered = re.findall(
        r"^(?:plain transformers|persona_probe|unsteered): +(.+)$", text, flags=re.MULTILINE
    )
    assert plain == ours != unsteered


FINDINGS = [quickstart, before_and_after, directions, steering, study, your_own, interchange]


@pytest.mark.notebook
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "check"), list(zip(NAMES, FINDINGS, strict=True)), ids=NAMES)
def test_a_notebook_finds_now_what_it_says(
    name: str, check: Any, executed: dict[str, Future[Any]]
) -> None:
    now = said(executed[name].result())
    check(now)
    check(said(kept(name)))
    assert MACHINE.search(now) is None
