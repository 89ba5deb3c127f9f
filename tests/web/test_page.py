"""The page in a real Chromium; the server is scripted, except in the last test."""

import pytest
from thirteen.server.api.core import format_event
from thirteen.server.config import ApiKeys

from ..axe_core import violations
from ..chromium import BROWSER_TEST, LOW_CONTRAST
from ..server.serving import open_engine, serve_engine
from ..waiting import wait_until
from .conftest import PHONE
from .questions import ANSWERS, EGGS, VOTES, ask, ask_and_wait, part

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = BROWSER_TEST
expect = playwright.expect
expect.set_options(timeout=30_000)

STORE = "(found) => import('/page/conversations.js').then((module) => found.map(module.storeConversation))"


def test_an_answer_streams_as_text_and_gets_the_servers_marks(page, server):
    ask(page, "!hold")
    expect(part(page, "answer")).to_have_text("It is 3 + 4 = 7. So the answer is")
    expect(part(page, "result")).to_have_text("Working it out")
    expect(page.locator(".step")).to_have_count(0)
    expect(page.locator("#announcement")).to_have_text("Working it out")
    server.release.set()
    expect(part(page, "result")).to_have_text("7")
    expect(page.locator(".step.ok")).to_have_text("3 + 4 = 7")
    expect(part(page, "checks")).to_have_text("1 sum checked; the reasoning was not.")
    expect(part(page, "stats")).to_contain_text("25 tokens · 100.0 tokens/s · first token after 0.13 s")
    said = "7. 1 sum checked; the reasoning was not. It is 3 + 4 = 7. So the answer is 7."
    expect(page.locator("#announcement")).to_have_text(said)
    assert server.requests == [
        {"question": "!hold", "turns": [], "effort": "low", "model": "smollm2", "stream": True}
    ]


def test_what_is_said_about_an_answer(page):
    """Nothing of it can be taken for "the answer is right"; code has no number as its result."""
    for question, result, said in (
        ("wrong", "147", "2 sums checked, 1 wrong; 1 equation and the reasoning were not."),
        ("tie", "Not sure", "4 of 8 answers say 6, 4 say 7"),
        ("cut", "Cut off", "cut off at the token limit · no room for the first turn"),
        ("vote", "31", "confidence 83 %"),
        ("code", "", ""),
    ):
        ask_and_wait(page, question)
        expect(part(page, "result")).to_have_text(result)
        expect(page.locator(".turn").last).to_contain_text(said)
    expect(page.get_by_title("This sum is wrong: 156")).to_have_count(1)


def test_votes_are_the_servers(page, server):
    """JavaScript orders integer keys of an object by value, not by votes."""
    server.answers["!hold"] = ANSWERS["!hold"] | {"tally": VOTES}
    page.get_by_label("Effort").select_option("medium")
    expect(page.get_by_label("Model")).to_have_text("smollm2sums-13")  # without the model for embeddings
    page.get_by_label("Model").select_option("sums-13")
    ask(page, "!hold")
    expect(part(page, "result")).to_have_text("Working it out: 2 of 3 answers say 31, 1 says 7")
    server.release.set()
    expect(page.get_by_text("4 of 5 answers say 31, 1 says 7", exact=True)).to_be_visible()
    assert [(sent["effort"], sent["model"]) for sent in server.requests] == [("medium", "sums-13")]


def test_stop_disconnects_and_keeps_the_text(page, server):
    """So does leaving a conversation."""
    ask(page, "long")
    expect(part(page, "answer")).to_contain_text("3 + 1 = 4")
    page.keyboard.press("Escape")
    expect(part(page, "result")).to_have_text("Stopped")
    assert server.disconnected.wait(5)
    ask(page, "!hold")
    expect(part(page, "answer")).to_contain_text("So the answer is")
    assert server.requests[-1]["turns"] == []  # a stopped answer is none
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="long", exact=True).click()
    expect(page.locator(".result")).to_have_text(["Stopped", "Stopped"])
    expect(page.locator(".answer").first).to_contain_text("3 + 1 = 4")


def test_a_double_click_on_ask_does_not_stop(page):
    """Stop replaces Ask, so that the second click hits Stop."""
    page.get_by_label("Ask a math question").fill(EGGS)
    page.get_by_role("button", name="Ask", exact=True).dblclick()
    expect(part(page, "result")).to_have_text("31")


BUSY = {"status": 429, "json": {"error": {"message": "All slots are used."}}, "headers": {"Retry-After": "3"}}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (BUSY, "All slots are used. (try again in 3 s)"),
        ({"body": format_event(BUSY["json"], "error")}, "All slots are used."),
        (
            {"body": format_event({"text": "It"}, "text")},
            "The connection was lost before the answer was complete.",
        ),
    ],
)
def test_a_failure_leaves_the_turns_and_the_question(page, response, message):
    ask_and_wait(page, EGGS)
    page.route("**/v1/answer", lambda route: route.fulfill(**response))
    ask(page, "Why?")
    error = page.get_by_role("alert")
    expect(error).to_have_text(message)
    if response is BUSY:  # of the others there is some text, which stays
        expect(page.locator(".question")).to_have_text([EGGS])
        expect(page.get_by_label("Ask a math question")).to_have_value("Why?")
        page.unroute_all()
        ask(page, EGGS)
        expect(page.locator(".turn")).to_have_count(2)
        expect(error).to_be_empty()


def test_an_answer_is_copied_as_its_source(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask_and_wait(page, "wrong")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == ANSWERS["wrong"]["text"]


def test_the_page_works_with_the_real_server_whose_key_it_keeps_for_the_tab(visit, smollm2, tmp_path):
    """The scripted server could deviate from the real protocol."""
    secret, question = "thirteen-" * 3, "Repeat exactly: 1234 * 5678 ="
    (tmp_path / "keys").write_text(secret)
    with open_engine(smollm2) as engine, serve_engine(engine, keys=ApiKeys(tmp_path / "keys")) as real:
        page = visit(real.url, **PHONE)
        key = page.get_by_label("This server requires an API key")
        expect(key).to_be_focused()
        assert violations(page) == []
        key.fill("guess")
        key.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("API key")
        key.fill(f" {secret} ")
        page.get_by_role("button", name="Unlock").click()
        expect(key).to_be_hidden()
        page.reload()
        expect(page.get_by_label("Effort")).to_have_value(real.service.default_effort("model"))
        page.get_by_label("Effort").select_option("low")
        ask_and_wait(page, question)
        assert secret not in page.evaluate("JSON.stringify(localStorage)")
        answer = engine.answer(question)
        assert answer.steps
        expect(page.locator(".step.ok")).to_have_count(len(answer.steps))
        expect(part(page, "result")).to_have_text(answer.value or "")


def test_a_thought_is_folded_above_the_answer_and_stored_with_it(page):
    ask_and_wait(page, EGGS)
    expect(page.locator("details")).to_be_hidden()
    ask_and_wait(page, "think")
    for _ in range(2):
        expect(page.locator("details p").last).to_be_hidden()
        page.get_by_text("Thoughts").last.click()
        expect(page.locator("details p").last).to_have_text("Is 2 + 2 = 5? No.")
        expect(part(page, "answer")).to_have_text("It is 7.")
        page.reload()


def test_conversations_are_stored_opened_and_deleted(page, server):
    ask_and_wait(page, EGGS)
    ask_and_wait(page, "wrong")
    assert server.requests[-1]["turns"] == [{"question": EGGS, "answer": ANSWERS[EGGS]["text"]}]
    page.get_by_role("button", name="New conversation").click()
    ask_and_wait(page, "think")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="History").click()
    items = page.locator("#conversations li button:first-child")
    expect(items).to_have_text(["think", EGGS])
    items.last.click()
    expect(items.last).to_be_hidden()
    expect(page.locator(".question")).to_have_text([EGGS, "wrong"])
    expect(page.locator(".step.wrong del")).to_have_text("146")
    page.reload()
    expect(page.locator(".question")).to_have_text([EGGS, "wrong"])
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name=f"Delete: {EGGS}").click()
    expect(items).to_have_text(["think"])
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Delete all").click()
    expect(page.get_by_role("button", name="History")).to_be_disabled()


def test_the_storage_is_bounded(page):
    stored = "JSON.parse(localStorage['thirteen.conversations-2'])"
    turn = {"text": "x" * 400_000, "answer": None}
    short = [{"id": str(number), "turns": [turn | {"question": "?", "text": ""}]} for number in range(30)]
    page.evaluate(STORE, short)
    assert [found["id"] for found in page.evaluate(stored)] == [str(number) for number in range(29, 9, -1)]
    page.evaluate(STORE, [{"id": "long", "turns": [turn | {"question": question} for question in "abc"]}])
    assert [[turn["question"] for turn in kept["turns"]] for kept in page.evaluate(stored)] == [["b", "c"]]


def test_the_page_works_without_storage(open_page):
    page = open_page("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })")
    ask_and_wait(page, EGGS)
    expect(part(page, "result")).to_have_text("31")


def test_the_end_stays_in_view_until_the_reader_scrolls(page):
    page.set_viewport_size({"width": 600, "height": 500})
    ask_and_wait(page, EGGS)
    ask(page, "long")
    expect(part(page, "answer")).to_contain_text("150 + 1")
    from_end = "document.documentElement.scrollHeight - innerHeight - scrollY"
    wait_until(lambda: page.evaluate(from_end) < 60, 5)
    page.mouse.wheel(0, -400)
    wait_until(lambda: page.evaluate(from_end) > 300, 5)
    expect(part(page, "answer")).to_contain_text("250 + 1")
    assert page.evaluate(from_end) > 300
    page.keyboard.press("Escape")


@pytest.mark.parametrize(
    ("scheme", "screen"), [("light", PHONE), ("dark", {"viewport": {"width": 1440, "height": 900}})]
)
def test_axe_finds_nothing_and_all_fits_the_screen(open_page, scheme, screen):
    page = open_page(color_scheme=scheme, **screen)
    assert violations(page) == []
    for question in (EGGS, "wrong", "vote", "think", "code", "wide"):
        ask_and_wait(page, question)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.route("**/v1/answer", lambda route: route.fulfill(**BUSY))
    ask(page, "!busy")
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.get_by_role("button", name="History").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.evaluate(LOW_CONTRAST) == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_conversation_by_keyboard_alone(page, server):
    expect(page.get_by_label("Ask a math question")).to_be_focused()
    for key in ("Enter", "a", "Shift+Enter", "b", "Enter"):
        page.keyboard.press(key)
    expect(part(page, "stats")).not_to_be_empty()
    assert server.requests[0]["question"] == "a\nb"
    page.keyboard.type(EGGS)
    page.keyboard.press("Enter")
    expect(part(page, "result")).to_have_text("31")
