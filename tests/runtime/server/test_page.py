"""The page as a person meets it, in a real Chromium; but in the last test, the server answers by a script."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from thirteen.runtime.arithmetic.calculator import check_steps

from . import serving
from .page_server import Script, ScriptedServer, serve_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install '.[test]'"
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"
)

Page = playwright.Page
expect = playwright.expect
expect.set_options(timeout=10_000)

EGGS = "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?"
HOSTILE = "<img src=x onerror='window.hacked = 1'><b>bold</b> &amp; <script>window.hacked = 1</script>"
WIDE = "9" * 90 + " is a number and " + "w" * 120 + " a word. 1234567890123456789 + 1 = 1234567890123456790 ."
ANSWERS = {
    EGGS: "The boxes hold 3 * 12 = 36 eggs. 5 break, so 36 - 5 = 31 are left. The answer is 31.",
    "wrong": "We need 12 * 13 = 146 and then 146 + 1 = 147 . The answer is 147.",
    "!hold": "It is 3 + 4 = 7, and the answer is 7.",
    "words": "I would rather not say.",
    "hostile": f"{HOSTILE} so 3 + 4 = 7 . The answer is 7.",
    "wide": WIDE,
    "long": " ".join(f"{n} + 1 = {n + 1} ." for n in range(1_000)),
    "!crumbs": "Half a loaf — ½ — is 1/2 and 2 + 2 = 4 …",
}

CLAIMS = [  # a text, and what its equations claim, as it stands there
    ("12 * 13 = 156, and 20% of 85 is 17.", ["156", "17"]),
    ("3 * 4 = 12 + 5 = 17 eggs", ["12 + 5", "17"]),
    (r"\[\frac{3}{4} \times 8 = 6\] so \(6 + 1 = \boxed{7}\)", ["6", r"\boxed{7}"]),
    ("3 + 4 apples are 3 + 4 = 7. 2 more: 7 + 2 = 9", ["7", "9"]),
    ("He pays 3 * $1,250.50 = $3,751.50. Then", ["$3,751.50"]),
    ("3 * 4 = <<3*4=12>>12 eggs, 10 / 3 ≈ 3.33 each", ["12", "3.33"]),
    ("1/2 + 1/4 = 3/4, 5 - 8 = -3, 2 + 2 = 5", ["3/4", "-3", "5"]),
    ("x\n  3 + 4\n  = 7\n= 5 + 2", ["7"]),
]
PIECES = "([text, steps]) => import('/steps.js').then(({ pieces }) => pieces(text, steps))"

# The contrast of every visible text with what is behind it, as WCAG 2 counts it; those too low.
PALE = """() => {
  const light = (color) => color.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const read = (color) => color.match(/[\\d.]+/g).map(Number);
  const behind = (e) => { const c = e ? read(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return c[3] === 0 ? behind(e.parentElement) : c; };
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
    (e.tagName === "TEXTAREA" || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  return texts.map((e) => {
    const [one, other] = [light(read(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
    return [(one + 0.05) / (other + 0.05), e.outerHTML.slice(0, 80)];
  }).filter(([contrast]) => contrast < 4.5);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with (
        playwright.sync_playwright() as engine
    ):  # a module's: while it runs, asyncio.run() fails in this thread
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
    script.asked.clear()
    script.hung_up.clear()
    script.go_on.clear()
    return script


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Page]]:
    """visit(address, …): a new visitor's page; nothing comes from elsewhere, and no script fails."""
    contexts, complaints = [], []

    def visit(address: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: "Content Security" in said.text and complaints.append(said.text))
        page.on("request", lambda sent: sent.url.startswith(address) or complaints.append(sent.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit: Callable[..., Page], server: tuple[str, Script], script: Script) -> Page:
    page = visit(server[0])
    expect(page.get_by_label("Model")).to_have_value("smollm2")
    return page


def ask(page: Page, question: str) -> None:
    page.get_by_label("Ask a math question").fill(question)
    page.get_by_role("button", name="Ask").click()


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, f"not within {seconds} s"
        sleep(0.01)


def result(page: Page) -> Any:
    return page.locator("output")


def test_an_answer_streams_in_and_its_steps_are_marked(page: Page, script: Script) -> None:
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(result(page)).to_contain_text("✓ verified")
    expect(page.locator(".step.ok")).to_have_text(["3 * 12 = 36✓", "36 - 5 = 31✓"])
    assert page.locator("#text").inner_text().replace("✓", "") == ANSWERS[EGGS]
    expect(page.locator("#figures")).to_contain_text(
        "25 tokens (3 by the calculator) · 100.0 tokens/s · first after 0.13 s · "
        "49 tokens of prompt (12 cached) · smollm2"
    )
    expect(page.get_by_role("heading", name=EGGS)).to_be_visible()
    assert script.asked == [{"question": EGGS, "model": "smollm2", "votes": 1, "stream": True}]


def test_steps_are_marked_before_the_answer_is_whole(page: Page, script: Script) -> None:
    """A browser that got everything at once would show the same in the end."""
    ask(page, "!hold")
    expect(page.get_by_role("img", name="correct")).to_have_count(1)
    expect(page.locator("#text")).to_have_text("It is 3 + 4 = 7✓, and the answer is")
    expect(result(page)).to_contain_text("Working it out")
    script.go_on.set()
    expect(page.locator("#text")).to_have_text("It is 3 + 4 = 7✓, and the answer is 7.")
    expect(result(page)).to_contain_text("✓ verified")


def test_a_wrong_step_is_crossed_and_has_the_right_result(page: Page) -> None:
    ask(page, "wrong")
    expect(result(page)).to_contain_text("not verified")
    expect(result(page)).to_contain_text("1 of 2 sums wrong")
    expect(page.locator(".step.wrong")).to_have_text("12 * 13 = 146 156✗")
    expect(page.locator(".step.wrong del")).to_have_text("146")
    expect(page.get_by_role("img", name="wrong, it is 156")).to_be_visible()


def test_an_answer_without_a_number_says_so(page: Page) -> None:
    ask(page, "words")
    expect(result(page)).to_have_text("No final numbernot verifiedno sum to check")


def test_the_final_value_is_told_to_screen_readers(page: Page) -> None:
    """A live region must be there before its content changes, or the change is not read out."""
    expect(result(page)).to_have_attribute("aria-live", "polite")
    ask(page, EGGS)
    expect(page.get_by_role("status")).to_contain_text("31")
    expect(page.locator("#text[aria-live]")).to_have_count(0)


def test_stop_hangs_up_and_keeps_what_came(page: Page, script: Script) -> None:
    ask(page, "long")
    expect(page.get_by_role("img", name="correct").nth(3)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(result(page)).to_have_text("Stopped")
    assert script.hung_up.wait(5)
    expect(page.locator("#text")).to_contain_text("3 + 1 = 4")
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.locator("#text")).not_to_contain_text("3 + 1 = 4")


def test_a_double_click_on_ask_does_not_stop(page: Page) -> None:
    """Stop appears where Ask was: the second click would meet it."""
    page.get_by_label("Ask a math question").fill(EGGS)
    page.get_by_role("button", name="Ask").dblclick()
    expect(result(page)).to_contain_text("31")


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("!busy", "All slots are taken. (try again in 3 s)"),
        ("!fail", "The computation failed."),
        ("!break", "The answer broke off: the connection was lost."),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(page: Page, question: str, line: str) -> None:
    ask(page, question)
    expect(page.get_by_role("alert")).to_have_text(line)
    expect(result(page)).to_have_text("No answer")
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_server_that_is_gone_is_told_in_a_line(page: Page) -> None:
    page.context.set_offline(True)
    ask(page, EGGS)
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_a_key_is_asked_for_and_kept_for_the_tab(visit: Callable[..., Page]) -> None:
    with serve_app(ScriptedServer(Script(ANSWERS, key="thirteen-26")).app) as address:
        page = visit(address)
        key = page.get_by_label("This server asks for an API key")
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
        expect(page.context.pages[-1].get_by_label("This server asks for an API key")).to_be_visible()


def test_the_model_and_the_votes_are_chosen(page: Page, script: Script) -> None:
    """Whole numbers as keys of an object come in their own order, not in that of the votes."""
    page.get_by_label("Model").select_option("gsm8k-13")
    page.get_by_label("Votes").select_option("5")
    ask(page, EGGS)
    expect(page.locator("#tally li")).to_have_text(["314 of 5", "71 of 5"])
    assert script.asked == [{"question": EGGS, "model": "gsm8k-13", "votes": 5, "stream": True}]


@pytest.mark.parametrize("width", [320, 1440])
def test_nothing_is_wider_than_the_screen(
    visit: Callable[..., Page], server: tuple[str, Script], width: int
) -> None:
    page = visit(server[0], viewport={"width": width, "height": 640})
    for question in (EGGS, "wide"):
        page.get_by_label("Votes").select_option("1")
        ask(page, question)
        expect(page.locator("#figures")).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Votes").select_option("3")
    ask(page, "wide")
    expect(page.locator("#tally li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    visit: Callable[..., Page], server: tuple[str, Script], scheme: str
) -> None:
    page = visit(server[0], color_scheme=scheme)
    for question in ("wrong", EGGS, "!fail"):
        ask(page, question)
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        assert page.evaluate(PALE) == []
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 64) == (scheme == "dark")


def test_what_looks_like_markup_stays_text(page: Page, visit: Callable[..., Page]) -> None:
    with serve_app(
        ScriptedServer(Script({HOSTILE: ANSWERS["hostile"]}, models=(HOSTILE, "other"))).app
    ) as address:
        page = visit(address)
        ask(page, HOSTILE)
        expect(result(page)).to_contain_text("7")
        expect(page.locator("#text")).to_contain_text(HOSTILE)
        expect(page.locator("#asked")).to_have_text(HOSTILE)
        expect(page.locator("#questions button > :first-child")).to_have_text(HOSTILE)
        expect(page.locator("main img, aside img, main b, main script")).to_have_count(0)
        page.reload()
        expect(page.locator("#questions")).to_contain_text(HOSTILE)
        assert page.evaluate("window.hacked") is None


def test_a_keyboard_is_enough(page: Page) -> None:
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


def test_the_last_questions_are_kept_and_cleared(page: Page) -> None:
    for question in ("words", EGGS, "words"):
        ask(page, question)
        expect(page.locator("#figures")).not_to_be_empty()
    page.reload()
    expect(page.locator("#questions li")).to_have_text(["words", f"{EGGS}31 ✓"])
    page.get_by_role("button", name=EGGS).click()
    expect(page.get_by_label("Ask a math question")).to_have_value(EGGS)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#history")).to_be_hidden()
    page.reload()
    expect(page.locator("#questions li")).to_have_count(0)
    assert page.evaluate("localStorage.getItem('thirteen.questions')") == "[]"


@pytest.mark.parametrize("kept", ["{", "7", '[null, {"question": 3}, {"question": "2 + 2"}]'])
def test_what_another_version_kept_does_no_harm(page: Page, kept: str) -> None:
    page.evaluate("(kept) => localStorage.setItem('thirteen.questions', kept)", kept)
    page.reload()
    ask(page, EGGS)
    expect(result(page)).to_contain_text("31")
    expect(page.locator("#questions")).to_contain_text(EGGS)


def test_paper_has_the_question_and_the_answer_only(page: Page) -> None:
    ask(page, EGGS)
    expect(page.locator("#figures")).not_to_be_empty()
    page.emulate_media(media="print")
    for seen in ("#asked", "output", "#text"):
        expect(page.locator(seen)).to_be_visible()
    for unseen in ("#ask", "#history"):
        expect(page.locator(unseen)).to_be_hidden()


def test_events_may_come_in_crumbs(page: Page) -> None:
    """Characters and line ends that are split between two packets, comments, carriage returns."""
    ask(page, "!crumbs")
    expect(result(page)).to_contain_text("verified")
    expect(page.locator("#text")).to_have_text("Half a loaf — ½ — is 1/2 and 2 + 2 = 4✓ …")


def test_every_step_is_found_where_it_stands(page: Page) -> None:
    """Only an expression and two values come with a step: which characters they are, the page finds out."""
    for text, claims in CLAIMS:
        checked = [asdict(step) for step in check_steps(text)]
        found = page.evaluate(PIECES, [text, checked])
        assert "".join(piece["text"] + piece["claim"] for piece in found) == text
        assert [piece["claim"] for piece in found if piece["step"]] == claims
        assert len(claims) == len(checked)


def test_the_files_are_sent_with_their_headers(server: tuple[str, Script]) -> None:
    address, _ = server
    for path, kind in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        sent = httpx.get(address + path)
        assert sent.headers["Content-Type"].startswith(kind)
        assert sent.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert sent.headers["X-Content-Type-Options"] == "nosniff"
        assert sent.headers["Referrer-Policy"] == "no-referrer"
        again = httpx.get(address + path, headers={"If-None-Match": sent.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(address + "/page.py").status_code == 404


def test_the_real_server_answers_the_page(visit: Callable[..., Page], smollm2: Path) -> None:
    """What the scripted server says might be another language than the real one's."""
    question = "If I have 3 apples and buy 4 more, how many apples do I have?"
    with serving.open_engine(smollm2) as engine, serving.serve_engine(engine, name="smollm2") as real:
        page = visit(real.url)
        expect(page.get_by_label("Model")).to_have_value("smollm2")
        ask(page, question)
        expect(page.locator("#figures")).to_contain_text("tokens/s")
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
