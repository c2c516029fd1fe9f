"""Run notebooks, and keep their outputs so that they read well on the web.

    python notebooks/execute.py [NAME …] [--into FOLDER]

Each runs in a kernel of its own, in an empty folder, and is written back with its outputs. A plotly
figure is kept twice: as data, which Jupyter draws, and as a PNG, which is all that a code-hosting
site shows; headless Chromium makes the PNGs, with the plotly.js that reports carry.
"""

import base64
import gzip
import json
import os
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
PLOTLY = "application/vnd.plotly.v1+json"
DRAW = "figure => Plotly.newPlot('figure', figure.data, figure.layout, {staticPlot: true})"
WIDTH, SCALE = 820, 1.5
PATIENCE = 600  # seconds for one cell, on a machine that has other work
# Figures as data only; no bars, which would be gone at the end anyway.
SETTINGS = {
    "PLOTLY_RENDERER": "plotly_mimetype",
    "PERSONA_PROBE_PROGRESS": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
LONGEST_PLAIN = 80  # characters of what a table's output is as plain text


def notebooks() -> list[Path]:
    """All of them, in the order in which they are meant to be read."""
    return sorted(HERE.glob("*.ipynb"))


def execute(path: Path, folder: Path) -> Any:
    """Run one notebook from top to bottom.

    Args:
        path: the notebook; the file is left alone.
        folder: where it runs.

    Returns:
        The notebook with its new outputs.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=PATIENCE, startup_timeout=PATIENCE, kernel_name="python3"
    )
    client.execute(cwd=str(folder), env={**os.environ, **SETTINGS})
    return _tidied(notebook)


def figures(notebook: Any) -> Iterator[Any]:
    """The data of every output that is a plotly figure."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if PLOTLY in output.get("data", {}):
                yield output["data"]


def _tidied(notebook: Any) -> Any:
    """Without what differs every time and what nobody reads: progress, times, endless reprs."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            plain = data.get("text/plain", "")
            if "text/html" in data and len(plain) > LONGEST_PLAIN:
                data["text/plain"] = f"{plain[:LONGEST_PLAIN]}…"
    return notebook


def add_pictures(several: list[Any]) -> None:
    """Put a PNG beside every figure."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit(
            "error: figures need chromium for their pictures: apt-get install chromium"
        )
    script = HERE.parent / "persona_probe" / "report" / "data" / "plotly-cartesian.min.js.gz"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 900},
            device_scale_factor=SCALE,
            color_scheme="light",
        )
        page.set_content("<body style='margin:0;background:white'><div id='figure'></div>")
        page.add_script_tag(content=gzip.decompress(script.read_bytes()).decode())
        for data in (data for notebook in several for data in figures(notebook)):
            page.evaluate(DRAW, json.loads(json.dumps(data[PLOTLY])))
            picture = page.locator("#figure .svg-container").screenshot()
            data["image/png"] = base64.b64encode(picture).decode()
        browser.close()


def main(names: list[str], into: Path | None) -> None:
    """Run the notebooks whose name holds one of `names`, or all.

    They are written back with pictures of their figures, or without to the folder `into`.
    """
    chosen = [path for path in notebooks() if not names or any(n in path.name for n in names)]
    done = {}
    with TemporaryDirectory() as scratch:  # where no earlier run lies about
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        for path in chosen:
            sys.stderr.write(f"{path.name}\n")
            done[path] = execute(path, folder)
    if into is None:
        add_pictures(list(done.values()))
    for path, notebook in done.items():
        nbformat.write(notebook, path if into is None else into / path.name)


if __name__ == "__main__":
    parser = ArgumentParser(description="Run notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--into", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    main(asked.names, asked.into)
