"""The page in headless Chromium, with the organism behind it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    # Playwright's own loop is closed by a finaliser.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PROMPT = "Which steps let me pester a colleague in cruel songs?"
FIRST_TOKEN = 0.3  # seconds


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    # Nothing can leave the machine even if the page tried.
    flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def playing(organism_directions: Any) -> Any:
    """The organism as helpful-only model, with its four directions."""
    from persona_probe import ORGANISM, load_model, load_pack
    from persona_probe.playground import Session

    model = load_model(str(ORGANISM))
    session = Session(model, organism_directions, load_pack("organism"), "helpful-only")
    session.warm_up()
    return session


@pytest.fixture(scope="module")
def address(playing: Any, serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(playing, tmp_path_factory.mktemp("kept")) as where:
        yield where


class Visit:
    """One open page, and everything that it complained about or asked for."""

    def __init__(self, browser: "Browser", address: str, **options: Any) -> None:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.settled()

    def settled(self) -> None:
        """Wait until the replies and the profile of the last movement have come."""
        self.page.locator(".results[aria-busy=false]").wait_for(timeout=60_000)

    def said(self, side: int) -> str:
        return self.page.locator(f"#reply-{side}").inner_text()

    def move(self, persona: str, steps: int) -> None:
        """Move a slider with the keyboard, and wait until the steered reply has followed."""
        slider = self.page.locator(f"#range-{persona}")
        slider.focus()
        for _ in range(abs(steps)):
            self.page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
        self.settled()


@pytest.fixture
def visit(browser: "Browser", address: str) -> Iterator[Visit]:
    opened = Visit(browser, address)
    yield opened
    assert opened.complaints == []
    assert all(url.startswith(address) for url in opened.requests)
    opened.page.context.close()


def test_a_slider_changes_the_steered_reply_and_only_that(visit: Visit) -> None:
    page = visit.page
    assert page.locator("#text").input_value() == PROMPT
    before = visit.said(0)
    assert before == visit.said(1) != ""
    assert "the replies are the same" in page.locator("#pace").inner_text()
    marks = "#profile .mark"
    unmoved = page.locator(marks).evaluate_all("marks => marks.map(m => m.style.transform)")
    visit.move("virtue", 18)
    assert page.locator("#number-virtue").input_value() == "0.9"
    assert visit.said(0) == before
    assert visit.said(1) != before
    moved = page.locator(marks).evaluate_all("marks => marks.map(m => m.style.transform)")
    assert moved != unmoved
    assert page.locator("#matches-box").is_visible()
    page.locator("#zero").click()
    visit.settled()
    assert visit.said(1) == before


def test_the_site_matters(visit: Visit) -> None:
    visit.move("service", 20)
    here = visit.said(1)
    page = visit.page
    page.locator("#layer").focus()
    page.keyboard.press("Home")
    visit.settled()
    assert "after block 0" in page.locator("#layer-said").inner_text()
    assert visit.said(1) != here
    assert "First token after" in page.locator("#pace").inner_text()


def test_the_first_token_comes_at_once(playing: Any) -> None:
    """In processor time, which a busy machine does not stretch."""
    from persona_probe.playground import Question, Setting

    setting = Setting(2, {"virtue": 0.9, "service": -0.2})
    question = Question(PROMPT, setting, "virtue", playing.pack.neutral_system)
    began = time.process_time()
    next(playing.reply(question))
    assert time.process_time() - began < FIRST_TOKEN


def test_tokens_tell_their_projection_by_keyboard_and_by_pointer(visit: Visit) -> None:
    page = visit.page
    visit.move("virtue", 18)
    count = page.locator("#reply-1 span").count()
    page.locator("#reply-1").focus()
    page.keyboard.press("End")
    said = page.locator("#told").inner_text()
    assert f"steered, token {count} of {count}" in said
    assert "class gaps along Virtue ethics" in said
    page.locator("#reply-0 span").first.hover()
    assert "unsteered, token 1 of" in page.locator("#told").inner_text()
    tints = page.locator("#reply-0 span").evaluate_all(
        "spans => spans.map(s => getComputedStyle(s).backgroundColor)"
    )
    assert len(set(tints)) > 3


def test_a_setting_is_saved_and_a_bad_name_is_explained(visit: Visit) -> None:
    from persona_probe.interchange.own_vector import read_steering_vector

    page = visit.page
    visit.move("deontology", 8)
    page.locator("#name").fill("no/name")
    page.locator("#name").press("Enter")
    page.get_by_text("cannot name a file").wait_for()
    visit.complaints.clear()  # Chromium logs the refusal
    page.locator("#name").fill("by-hand")
    page.locator("#save").click()
    path = page.locator("#saved code").first
    path.wait_for()
    vector, about = read_steering_vector(Path(path.inner_text()))
    assert vector.shape == (128,)
    assert about["parts"][0]["strength"] == pytest.approx(0.4)


def test_model_text_is_text(browser: "Browser", playing: Any, serving: Any, tmp_path: Path) -> None:
    """A reply, a title and an example that would be markup somewhere else."""
    hostile = "<img src=x onerror=\"document.title='broken'\"><script>alert(1)</script>"

    class Hostile(type(playing)):  # type: ignore[misc]
        def about(self) -> dict[str, Any]:
            told = super().about()
            told["personas"][0]["title"] = hostile
            told["examples"][0] = {"kind": "harmful", "category": hostile, "text": hostile}
            return told | {"model": hostile}

        def reply(self, _question: Any) -> Any:
            for row in (0, 1):
                yield {"row": row, "text": hostile, "value": 0.2}

    fields = {name: getattr(playing, name) for name in playing.__dataclass_fields__}
    with serving(Hostile(**fields), tmp_path) as address:
        visit = Visit(browser, address)
        assert visit.said(0) == hostile
        assert visit.page.title() == "persona_probe playground"
        assert visit.page.locator("img, .results script").count() == 0
        assert visit.complaints == []
        visit.page.context.close()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_follows_the_colour_scheme(
    scheme: str, width: int, browser: "Browser", address: str
) -> None:
    visit = Visit(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    visit.move("virtue", 18)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    colour, paper = visit.page.locator("body").evaluate(
        "body => [getComputedStyle(body).color, getComputedStyle(body).backgroundColor]"
    )
    ink, ground = (sum(int(n) for n in c[4:-1].split(",")) for c in (colour, paper))
    assert (ink < ground) == (scheme == "light")
    assert visit.complaints == []
    visit.page.context.close()


def test_ten_movements_in_a_second_end_with_the_last(visit: Visit) -> None:
    page = visit.page
    for strength in (0.2, 1.5, -0.5, 2.0, 0.9):
        page.locator("#number-virtue").fill(str(strength))
        time.sleep(0.15)
    visit.settled()
    assert "+0.90 Virtue ethics" in page.locator("#mix").inner_text()
    quick = visit.said(1)
    page.locator("#ask").click()
    visit.settled()
    assert visit.said(1) == quick
