"""The page in headless Chromium: figures drawn, nothing complained about, nothing fetched."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=20000", "--enable-logging=stderr",
    # Nothing can leave the machine even if the page tried; what it tried is in the log.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
LIGHT, DARK = 1, 0


class Visit:
    """One page load.

    Attributes:
        dom: the document after its scripts ran.
        complaints: console lines, which include breaches of the content policy.
        requests: addresses that the page itself asked for, beyond itself.
    """

    def __init__(self, page: Path, scratch: Path, scheme: int = LIGHT) -> None:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if chromium is None:
            pytest.skip("no chromium on this machine: apt-get install chromium")
        log = scratch / "net.json"
        command = [
            chromium, *FLAGS, f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}",
            f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        self.dom = done.stdout
        self.complaints = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
        self.requests = _requests(json.loads(log.read_text()))


def _requests(log: dict) -> list[str]:  # type: ignore[type-arg]
    """Requests with an origin; the browser's own (updates, time) have none."""
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [e["params"] for e in log["events"] if e["type"] == start and "params" in e]
    return [p["url"] for p in events if "url" in p and p.get("initiator") != "not an origin"]


def test_the_watch_notices_a_page_that_misbehaves(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><script>console.error("boom")</script><img src="http://example.invalid/x">'
    )
    visit = Visit(page, tmp_path)
    assert any("boom" in line for line in visit.complaints)
    assert visit.requests == ["http://example.invalid/x"]


def test_every_figure_is_drawn_without_a_complaint_or_a_request(
    report: Path, tmp_path: Path
) -> None:
    visit = Visit(report, tmp_path)
    assert visit.complaints == []
    assert visit.requests == []
    boxes = visit.dom.count('class="plot js-plotly-plot"')
    assert boxes == 4 * 4 + 5
    assert visit.dom.count('type="application/json"') == 0, "every figure's data was consumed"
    assert "broken</text>" not in visit.dom


def test_figures_follow_the_colour_scheme(report: Path, tmp_path: Path) -> None:
    inks = {}
    for name, scheme in (("light", LIGHT), ("dark", DARK)):
        (tmp_path / name).mkdir()
        dom = Visit(report, tmp_path / name, scheme).dom
        found = re.findall(r'class="xtick"><text[^>]*?fill: (rgb\([^)]*\))', dom)
        assert len(found) > 20
        assert len(set(found)) == 1
        inks[name] = [int(part) for part in re.findall(r"\d+", found[0])]
    assert max(inks["light"]) < 120 < min(inks["dark"])


def test_hostile_replies_do_not_run(report: Path, tmp_path: Path) -> None:
    visit = Visit(report, tmp_path)
    assert "&lt;script&gt;window.broken = true&lt;/script&gt;" in visit.dom
    assert "<script>window.broken" not in visit.dom
    assert visit.requests == []
