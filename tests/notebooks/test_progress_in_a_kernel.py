"""What a long job looks like in a real kernel."""

import asyncio
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """
import time
from persona_probe.progress import note, track
note("about to count")
for _ in track(range(4), "Counting <sheep>", 4):
    time.sleep(0.3)
"""


class Watching(NotebookClient):
    """Remembers every display of the kernel, also those that are replaced."""

    shown: list[str]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.shown.append(msg["content"]["data"].get("text/html", "none"))
        return super().process_message(msg, cell, cell_index)


@pytest.mark.notebook
def test_a_bar_moves_in_place_and_goes_when_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PERSONA_PROBE_PROGRESS", raising=False)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = Watching(notebook, timeout=300, startup_timeout=300, kernel_name="python3")
    client.shown = []
    asyncio.run(client.async_execute())  # `execute` would leave its loop open
    assert len(client.shown) > 3
    assert "Counting &lt;sheep&gt;" in client.shown[0]
    assert any("2 of 4" in page for page in client.shown)
    assert client.shown[-1] == ""
    outputs = notebook.cells[0].outputs
    assert [o.output_type for o in outputs] == ["stream", "display_data"]
    assert (outputs[0].name, outputs[0].text) == ("stderr", "about to count\n")
