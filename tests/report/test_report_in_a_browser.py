"""The page in headless Chromium: drawn whole, nothing complained about, nothing fetched."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from synthetic_run import write_synthetic_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WIDTHS = {"desk": 1400, "phone": 390}
# Points, lines, cells or words: whatever a figure consists of.
MARKS = ".scatterlayer path, .scatterlayer text, .heatmaplayer image, .heatmaplayer path"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visit:
    """One page load.

    Attributes:
        page: after its scripts ran.
        complaints: console lines and errors, which include breaches of the content policy.
        requests: addresses that the page asked for, beyond itself.
    """

    def __init__(
        self, browser: "Browser", file: Path, width: int = 1400, scheme: Any = "light"
    ) -> None:
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri(), wait_until="load", timeout=120_000)
        self.requests.remove(file.as_uri())
        # Figures are drawn bit by bit; those that are folded are not.
        self.wait("every(box => box.data || box.closest('details:not([open])'))")

    def unfold(self) -> None:
        """Open everything, and wait for what is drawn then."""
        self.page.evaluate("document.querySelectorAll('details').forEach(f => f.open = true)")
        self.wait("every(box => box.data)")

    def wait(self, until: str) -> None:
        """Wait for something to hold of the figures; the page's own policy forbids evaluation."""
        end = time.monotonic() + 120
        while not self.page.evaluate(f"[...document.querySelectorAll('.plot')].{until}"):
            assert time.monotonic() < end, f"not in two minutes: {until}"
            self.page.wait_for_timeout(100)


@pytest.fixture(scope="module")
def compared(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete run's report in its folder, beside a second run."""
    from persona_probe.report import write_report

    folder = write_synthetic_run(tmp_path_factory.mktemp("pair") / "first")
    second = write_synthetic_run(folder.parent / "second", seed=1)
    write_report(second)
    return write_report(folder, against=second)


def test_the_watch_notices_a_page_that_misbehaves(browser: "Browser", tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><script>console.error("boom")</script><img src="http://127.0.0.1:9/x">'
    )
    visit = Visit(browser, page)
    assert any("boom" in line for line in visit.complaints)
    assert visit.requests == ["http://127.0.0.1:9/x"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_without_a_complaint_a_request_or_an_overflow(
    browser: "Browser", compared: Path, width: str, scheme: str
) -> None:
    visit = Visit(browser, compared, WIDTHS[width], scheme)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    visit.unfold()
    # Nothing may be wider than the screen but tables, which scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert visit.complaints == []
    assert visit.requests == []
    plots = page.locator(".plot").count()
    assert plots > 40
    assert page.locator(".plot.js-plotly-plot").count() == plots
    empty = page.evaluate(
        "marks => [...document.querySelectorAll('.plot')]"
        ".filter(box => !box.querySelector(marks)).map(box => box.textContent)",
        MARKS,
    )
    assert empty == [], "a figure without a mark"
    page.close()


@pytest.mark.parametrize("width", WIDTHS.values())
def test_no_label_of_a_figure_is_cut_off(browser: "Browser", compared: Path, width: int) -> None:
    visit = Visit(browser, compared, width)
    visit.unfold()
    cut = visit.page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap(box => {
            const frame = box.getBoundingClientRect();
            if (!frame.width) return [];
            const texts = box.querySelectorAll('.infolayer text, .xaxislayer-above text, '
                + '.yaxislayer-above text, .annotation-text');
            return [...texts].filter(text => {
                const at = text.getBoundingClientRect();
                return at.width && (at.left < frame.left - 2 || at.right > frame.right + 2
                    || at.top < frame.top - 2 || at.bottom > frame.bottom + 2);
            }).map(text => text.textContent);
        })"""
    )
    assert cut == []
    visit.page.close()


def test_figures_follow_the_colour_scheme(browser: "Browser", report: Path) -> None:
    inks = {}
    for scheme in ("light", "dark"):
        visit = Visit(browser, report, scheme=scheme)
        found = visit.page.evaluate(
            "[...document.querySelectorAll('.xtick text')].map(t => getComputedStyle(t).fill)"
        )
        assert len(found) > 20
        assert len(set(found)) == 1
        inks[scheme] = [int(part) for part in re.findall(r"\d+", found[0])]
        visit.page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        visit.page.wait_for_timeout(500)
        after = visit.page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        assert after != found[0], "the figures kept the colours of the other scheme"
        visit.page.close()
    assert max(inks["light"]) < 120 < min(inks["dark"])


def test_hostile_text_is_shown_and_does_not_run(browser: "Browser", report: Path) -> None:
    visit = Visit(browser, report)
    visit.unfold()
    page = visit.page
    assert page.evaluate("window.broken") is None
    assert "<script>window.broken = true</script>" in page.locator("#replies").inner_text()
    assert page.locator("#tokens svg text", has_text="<script>window.broken").count() > 0
    assert page.locator("img").count() == 0
    page.close()


def test_every_link_resolves(browser: "Browser", compared: Path) -> None:
    page = Visit(browser, compared).page
    links = set(page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))"))
    assert None not in links
    ids = set(page.eval_on_selector_all("[id]", "all => all.map(e => '#' + e.id)"))
    inside = {link for link in links if link.startswith("#")}
    assert len(inside) > 300
    assert inside <= ids
    for link in links - inside:
        assert not urlsplit(link).scheme
        assert (compared.parent / unquote(link)).exists(), link
    page.close()


def test_every_number_of_a_table_is_a_link_and_its_row_holds_it(
    browser: "Browser", report: Path
) -> None:
    page = Visit(browser, report).page
    loose = page.eval_on_selector_all("span.number", "all => all.map(e => e.textContent)")
    assert loose == []
    wrong = page.evaluate(
        """() => [...document.querySelectorAll('#controls a.number')].filter(link => {
            const shown = parseFloat(link.firstChild.textContent.replace('\\u2212', '-'));
            const row = document.getElementById(link.getAttribute('href').slice(1)).textContent;
            const numbers = row.match(/-?\\d+\\.?\\d*(e-?\\d+)?/g).map(Number);
            return Number.isFinite(shown) && !link.closest('tr').textContent.includes('draws')
                && !numbers.some(number => Math.abs(number - shown) < 0.00501);
        }).map(link => link.textContent)"""
    )
    assert wrong == []
    page.close()


def test_a_number_and_a_point_lead_to_their_row(browser: "Browser", report: Path) -> None:
    page = Visit(browser, report).page
    number = page.locator("#controls a.number").first
    target = str(number.get_attribute("href"))[1:]
    row = page.locator(f"[id='{target}']")
    assert not row.is_visible(), "rows are folded at first"
    number.click()
    row.wait_for(state="visible")
    assert row.evaluate("e => e.matches(':target')")
    points = page.evaluate(
        "document.querySelector('#verdict .plot').data.flatMap(t => t.customdata ?? [])"
    )
    assert len(points) > 10
    ids = set(page.eval_on_selector_all("[id]", "all => all.map(e => '#' + e.id)"))
    assert set(points) <= ids
    page.evaluate(
        "to => document.querySelector('#verdict .plot').emit('plotly_click', "
        "{points: [{customdata: to}]})",
        points[-1],
    )
    assert page.evaluate("location.hash") == points[-1]
    page.close()


def test_on_paper_everything_but_the_long_tables_is_there_in_dark_ink(
    browser: "Browser", report: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, report, scheme="dark")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.page.emulate_media(media="print")
    visit.page.wait_for_timeout(800)
    assert visit.page.locator("nav").is_hidden()
    assert visit.page.locator("details.persona[open]").count() >= 4
    background, ink = visit.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, "
        "getComputedStyle(document.querySelector('.xtick text')).fill]"
    )
    assert [int(part) for part in re.findall(r"\d+", background)][:3] == [255, 255, 255]
    assert max(int(part) for part in re.findall(r"\d+", ink)[:3]) < 120
    widest = visit.page.evaluate(
        "Math.max(...[...document.querySelectorAll('.plot .main-svg')].map(s => s.clientWidth))"
    )
    assert widest <= 700, "a figure is wider than a sheet"
    assert visit.page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert visit.complaints == []
    visit.page.close()
