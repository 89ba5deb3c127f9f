"""The page in a real Chromium; the server is scripted, except in the last test."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from thirteen.runtime.arithmetic.calculator import check_steps

from ...chromium import BROWSER_TEST, CHROMIUM
from . import serving
from .page_server import Script, ScriptedServer, serve_app

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install '.[test]'"
)
pytestmark = BROWSER_TEST

Page = playwright.Page
expect = playwright.expect
expect.set_options(timeout=10_000)

EGGS = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"
MARKUP = "<img src=x onerror='window.hacked = 1'><b>bold</b> &amp; <script>window.hacked = 1</script>"
WIDE = "9" * 90 + " is a number and " + "w" * 120 + " a word. 1234567890123456789 + 1 = 1234567890123456790 ."
ANSWERS = {
    EGGS: "The boxes hold 3 * 12 = 36 eggs. 5 break, so 36 - 5 = 31 are left. The answer is 31.",
    "wrong": "We need 12 * 13 = 146 and then 146 + 1 = 147 . The answer is 147.",
    "!hold": "It is 3 + 4 = 7, and the answer is 7.",
    "words": "I would rather not say.",
    "markup": f"{MARKUP} so 3 + 4 = 7 . The answer is 7.",
    "wide": WIDE,
    "long": " ".join(f"{n} + 1 = {n + 1} ." for n in range(1_000)),
    "!bytes": "Half a loaf — ½ — is 1/2 and 2 + 2 = 4 …",
}

CLAIMS = [  # a text, and the claims of its equations as written
    ("12 * 13 = 156, and 20% of 85 is 17.", ["156", "17"]),
    ("3 * 4 = 12 + 5 = 17 eggs", ["12 + 5", "17"]),
    (r"\[\frac{3}{4} \times 8 = 6\] so \(6 + 1 = \boxed{7}\)", ["6", r"\boxed{7}"]),
    ("3 + 4 apples are 3 + 4 = 7. 2 more: 7 + 2 = 9", ["7", "9"]),
    ("He pays 3 * $1,250.50 = $3,751.50. Then", ["$3,751.50"]),
    ("3 * 4 = <<3*4=12>>12 eggs, 10 / 3 ≈ 3.33 each", ["12", "3.33"]),
    ("1/2 + 1/4 = 3/4, 5 - 8 = -3, 2 + 2 = 5", ["3/4", "-3", "5"]),
    ("x\n  3 + 4\n  = 7\n= 5 + 2", ["7"]),
]
SPLIT_STEPS = "([text, steps]) => import('/steps.js').then(({ splitSteps }) => splitSteps(text, steps))"

# Visible texts whose contrast with the background is below the 4.5:1 of WCAG 2.
LOW_CONTRAST = """() => {
  const luminance = (color) => color.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const background = (e) => { const c = e ? parse(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return c[3] === 0 ? background(e.parentElement) : c; };
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
    (e.tagName === "TEXTAREA" || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  return texts.map((e) => {
    const pair = [luminance(parse(getComputedStyle(e).color)), luminance(background(e))];
    const [high, low] = pair.sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 80)];
  }).filter(([contrast]) => contrast < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Module scope: while Playwright runs, asyncio.run() fails in this thread.
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Script]]:
    script = Script(ANSWERS)
    with serve_app(ScriptedServer(script).app) as address:
        yield address, script


@pytest.fixture
def script(server: tuple[str, Script]) -> Script:
    _, script = server
    script.requests.clear()
    script.disconnected.clear()
    script.release.clear()
    return script


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Page]]:
    """visit(address, …): open the page; fails on script errors, CSP violations and foreign requests."""
    contexts, problems = [], []

    def visit(address: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: "Content Security" in message.text and problems.append(message.text)
        )
        page.on("request", lambda request: request.url.startswith(address) or problems.append(request.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(visit: Callable[..., Page], server: tuple[str, Script], script: Script) -> Page:
    page = visit(server[0])
    expect(page.get_by_label("Model")).to_have_value("smollm2")
    return page


def ask(page: Page, question: str) -> None:
    page.get_by_label("Ask a math question").fill(question)
    page.get_by_role("button", name="Ask").click()


def wait_until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    end = monotonic() + timeout_s
    while not condition():
        assert monotonic() < end, f"not within {timeout_s} s"
        sleep(0.01)


def result(page: Page) -> Any:
    return page.locator("output")


def test_answer_streams_and_steps_are_marked(page: Page, script: Script) -> None:
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(result(page)).to_contain_text("✓ verified")
    expect(page.locator(".step.ok")).to_have_text(["3 * 12 = 36✓", "36 - 5 = 31✓"])
    assert page.locator("#text").inner_text().replace("✓", "") == ANSWERS[EGGS]
    expect(page.locator("#stats")).to_contain_text(
        "25 tokens (3 by the calculator) · 100.0 tokens/s · first token after 0.13 s · "
        "49 prompt tokens (12 cached) · smollm2"
    )
    expect(page.get_by_role("heading", name=EGGS)).to_be_visible()
    assert script.requests == [{"question": EGGS, "model": "smollm2", "votes": 1, "stream": True}]


def test_steps_are_marked_before_the_answer_is_complete(page: Page, script: Script) -> None:
    """A page that shows everything only at the end would pass the test above."""
    ask(page, "!hold")
    expect(page.get_by_role("img", name="correct")).to_have_count(1)
    expect(page.locator("#text")).to_have_text("It is 3 + 4 = 7✓, and the answer is")
    expect(result(page)).to_contain_text("Working it out")
    script.release.set()
    expect(page.locator("#text")).to_have_text("It is 3 + 4 = 7✓, and the answer is 7.")
    expect(result(page)).to_contain_text("✓ verified")


def test_wrong_step_is_struck_out_and_corrected(page: Page) -> None:
    ask(page, "wrong")
    expect(result(page)).to_contain_text("not verified")
    expect(result(page)).to_contain_text("1 of 2 equations wrong")
    expect(page.locator(".step.wrong")).to_have_text("12 * 13 = 146 156✗")
    expect(page.locator(".step.wrong del")).to_have_text("146")
    expect(page.get_by_role("img", name="wrong, the result is 156")).to_be_visible()


def test_answer_without_a_number(page: Page) -> None:
    ask(page, "words")
    expect(result(page)).to_have_text("No final numbernot verifiedno equation to check")


def test_screen_readers_announce_the_value(page: Page) -> None:
    """A live region must exist before its content changes; otherwise the change is not announced."""
    expect(result(page)).to_have_attribute("aria-live", "polite")
    ask(page, EGGS)
    expect(page.get_by_role("status")).to_contain_text("31")
    expect(page.locator("#text[aria-live]")).to_have_count(0)


def test_stop_disconnects_and_keeps_the_text(page: Page, script: Script) -> None:
    ask(page, "long")
    expect(page.get_by_role("img", name="correct").nth(3)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(result(page)).to_have_text("Stopped")
    assert script.disconnected.wait(5)
    expect(page.locator("#text")).to_contain_text("3 + 1 = 4")
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.locator("#text")).not_to_contain_text("3 + 1 = 4")


def test_double_click_on_ask_does_not_stop(page: Page) -> None:
    """Stop replaces Ask, so the second click hits Stop."""
    page.get_by_label("Ask a math question").fill(EGGS)
    page.get_by_role("button", name="Ask").dblclick()
    expect(result(page)).to_contain_text("31")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("!busy", "All slots are in use. (try again in 3 s)"),
        ("!fail", "The computation failed."),
        ("!break", "The connection was lost before the answer was complete."),
    ],
)
def test_failure_shows_a_message(page: Page, question: str, message: str) -> None:
    ask(page, question)
    expect(page.get_by_role("alert")).to_have_text(message)
    expect(result(page)).to_have_text("No answer")
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.get_by_role("alert")).to_be_empty()


def test_unreachable_server_shows_a_message(page: Page) -> None:
    page.context.set_offline(True)
    ask(page, EGGS)
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_api_key_is_requested_and_stored_for_the_tab(visit: Callable[..., Page]) -> None:
    with serve_app(ScriptedServer(Script(ANSWERS, key="thirteen-26")).app) as address:
        page = visit(address)
        key = page.get_by_label("This server requires an API key")
        expect(key).to_be_focused()
        ask(page, EGGS)
        key.fill("guess")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Incorrect API key provided.")
        key.fill(" thirteen-26 ")
        page.get_by_role("button", name="Unlock").click()
        expect(result(page)).to_contain_text("31")
        expect(key).to_be_hidden()
        expect(page.get_by_role("alert")).to_be_empty()
        page.reload()
        expect(page.get_by_label("Model")).to_have_value("smollm2")
        assert page.evaluate("JSON.stringify(localStorage)").count("thirteen-26") == 0
        assert page.context.new_page().goto(address).ok
        expect(page.context.pages[-1].get_by_label("This server requires an API key")).to_be_visible()


def test_model_and_votes_selection(page: Page, script: Script) -> None:
    """JavaScript orders integer keys of an object by value, not by votes."""
    page.get_by_label("Model").select_option("gsm8k-13")
    page.get_by_label("Votes").select_option("5")
    ask(page, EGGS)
    expect(page.locator("#tally li")).to_have_text(["314 of 5", "71 of 5"])
    assert script.requests == [{"question": EGGS, "model": "gsm8k-13", "votes": 5, "stream": True}]


@pytest.mark.parametrize("width", [320, 1440])
def test_page_fits_the_screen_width(
    visit: Callable[..., Page], server: tuple[str, Script], width: int
) -> None:
    page = visit(server[0], viewport={"width": width, "height": 640})
    for question in (EGGS, "wide"):
        page.get_by_label("Votes").select_option("1")
        ask(page, question)
        expect(page.locator("#stats")).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Votes").select_option("3")
    ask(page, "wide")
    expect(page.locator("#tally li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast(visit: Callable[..., Page], server: tuple[str, Script], scheme: str) -> None:
    page = visit(server[0], color_scheme=scheme)
    for question in ("wrong", EGGS, "!fail"):
        ask(page, question)
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        assert page.evaluate(LOW_CONTRAST) == []
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 64) == (scheme == "dark")


def test_markup_is_shown_as_text(page: Page, visit: Callable[..., Page]) -> None:
    with serve_app(
        ScriptedServer(Script({MARKUP: ANSWERS["markup"]}, models=(MARKUP, "other"))).app
    ) as address:
        page = visit(address)
        ask(page, MARKUP)
        expect(result(page)).to_contain_text("7")
        expect(page.locator("#text")).to_contain_text(MARKUP)
        expect(page.locator("#prompt")).to_have_text(MARKUP)
        expect(page.locator("#questions button > :first-child")).to_have_text(MARKUP)
        expect(page.locator("main img, aside img, main b, main script")).to_have_count(0)
        page.reload()
        expect(page.locator("#questions")).to_contain_text(MARKUP)
        assert page.evaluate("window.hacked") is None


def test_keyboard_operation(page: Page) -> None:
    expect(page.get_by_label("Ask a math question")).to_be_focused()
    page.keyboard.type("long")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("img", name="correct").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(result(page)).to_have_text("Stopped")
    for name in ("model", "votes", "send", "clear"):
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_id(name)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.get_by_label("Ask a math question").fill(EGGS)
    page.get_by_role("button", name="Ask").press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    expect(result(page)).to_contain_text("31")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()


def test_history_is_stored_and_cleared(page: Page) -> None:
    for question in ("words", EGGS, "words"):
        ask(page, question)
        expect(page.locator("#stats")).not_to_be_empty()
    page.reload()
    expect(page.locator("#questions li")).to_have_text(["words", f"{EGGS}31 ✓"])
    page.get_by_role("button", name=EGGS).click()
    expect(page.get_by_label("Ask a math question")).to_have_value(EGGS)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#history")).to_be_hidden()
    page.reload()
    expect(page.locator("#questions li")).to_have_count(0)
    assert page.evaluate("localStorage.getItem('thirteen.questions')") == "[]"


@pytest.mark.parametrize("stored", ["{", "7", '[null, {"question": 3}, {"question": "2 + 2"}]'])
def test_history_of_another_version_is_harmless(page: Page, stored: str) -> None:
    page.evaluate("(stored) => localStorage.setItem('thirteen.questions', stored)", stored)
    page.reload()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.locator("#questions")).to_contain_text(EGGS)


def test_print_shows_only_question_and_answer(page: Page) -> None:
    ask(page, EGGS)
    expect(page.locator("#stats")).not_to_be_empty()
    page.emulate_media(media="print")
    for visible in ("#prompt", "output", "#text"):
        expect(page.locator(visible)).to_be_visible()
    for hidden in ("#ask", "#history"):
        expect(page.locator(hidden)).to_be_hidden()


def test_events_may_arrive_byte_by_byte(page: Page) -> None:
    """Characters and line endings split between packets, comments, carriage returns."""
    ask(page, "!bytes")
    expect(result(page)).to_contain_text("verified")
    expect(page.locator("#text")).to_have_text("Half a loaf — ½ — is 1/2 and 2 + 2 = 4✓ …")


def test_equations_are_found_in_the_text(page: Page) -> None:
    """A step has only the expression and its values; the page must find their position in the text."""
    for text, claims in CLAIMS:
        checked = [asdict(step) for step in check_steps(text)]
        segments = page.evaluate(SPLIT_STEPS, [text, checked])
        assert "".join(segment["text"] + segment["claim"] for segment in segments) == text
        assert [segment["claim"] for segment in segments if segment["step"]] == claims
        assert len(claims) == len(checked)


def test_security_headers_and_etags(server: tuple[str, Script]) -> None:
    address, _ = server
    for path, media_type in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        response = httpx.get(address + path)
        assert response.headers["Content-Type"].startswith(media_type)
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        revalidated = httpx.get(address + path, headers={"If-None-Match": response.headers["ETag"]})
        assert (revalidated.status_code, revalidated.content) == (304, b"")
    assert httpx.get(address + "/page.py").status_code == 404


def test_page_works_with_the_real_server(visit: Callable[..., Page], smollm2: Path) -> None:
    """The scripted server could deviate from the real protocol."""
    question = "If I have 3 apples and buy 4 more, how many apples do I have?"
    with serving.open_engine(smollm2) as engine, serving.serve_engine(engine, name="smollm2") as real:
        page = visit(real.url)
        expect(page.get_by_label("Model")).to_have_value("smollm2")
        ask(page, question)
        expect(page.locator("#stats")).to_contain_text("tokens/s", timeout=60_000)  # a real answer
        answer = engine.answer(question)
        assert answer.steps
        assert page.locator("#text").inner_text().replace("✓", "") == answer.text
        expect(page.locator(".step.ok")).to_have_count(len(answer.steps))
        expect(page.locator("output strong")).to_have_text(answer.value)
        expect(result(page)).to_contain_text("✓ verified" if answer.verified else "not verified")
        ask(page, "Write a long story about the number thirteen.")
        expect(page.locator("#text")).to_contain_text("a")
        page.keyboard.press("Escape")
        expect(result(page)).to_have_text("Stopped")
        wait_until(lambda: engine.load.running == 0)
