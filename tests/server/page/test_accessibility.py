"""The page for people who use a screen reader, a keyboard or a phone, in light and dark colours."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from ...axe_core import violations
from ...background_server import background_server
from ...chromium import BROWSER_TEST
from ..page_server import Script, ScriptedServer
from .browsing import ANSWERS, EGGS, ask, ask_and_wait, expect_ready, result, stats

pytestmark = BROWSER_TEST

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
TARGET_PX = 24  # WCAG 2.2, success criterion 2.5.8
SMALL_TARGETS = """(least) => [...document.querySelectorAll("button, select, input, textarea, summary, a")]
  .filter((e) => e.checkVisibility()).map((e) => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])
  .filter(([, box]) => box.width < least || box.height < least).map(([html]) => html)"""


@pytest.fixture(params=[("light", PHONE), ("dark", DESKTOP)])
def screen(
    request: pytest.FixtureRequest, visit: Callable[..., Page], server: tuple[str, Script], script: Script
) -> Page:
    scheme, viewport = request.param
    page = visit(server[0], color_scheme=scheme, viewport=viewport, has_touch=viewport == PHONE)
    expect_ready(page)
    return page


def test_axe_finds_nothing_in_a_conversation(screen: Page) -> None:
    assert violations(screen) == []
    for question in (EGGS, "wrong", "words", "code", "wide", "!think"):
        ask_and_wait(screen, question)
    screen.get_by_label("Effort").select_option("medium")
    ask(screen, EGGS)
    expect(screen.locator(".turn").last.locator(".tally li")).to_have_count(2)
    assert violations(screen) == []
    assert screen.evaluate(SMALL_TARGETS, TARGET_PX) == []
    screen.get_by_role("button", name="Edit").nth(1).click()
    assert violations(screen) == []
    screen.keyboard.press("Escape")
    screen.get_by_role("button", name="Settings").click()
    expect(screen.get_by_role("dialog", name="Settings")).to_be_visible()
    assert violations(screen) == []
    assert screen.evaluate(SMALL_TARGETS, TARGET_PX) == []
    screen.keyboard.press("Escape")
    ask(screen, "!fail")
    expect(screen.get_by_role("alert")).not_to_be_empty()
    history = screen.get_by_role("button", name="History")
    if history.is_visible():
        history.click()
    expect(screen.locator("#conversations")).to_be_visible()
    assert violations(screen) == []


def test_axe_finds_nothing_where_a_key_is_asked_for(visit: Callable[..., Page]) -> None:
    with background_server(ScriptedServer(Script(ANSWERS, key="thirteen-26")).app) as address:
        page = visit(address, viewport=PHONE)
        expect(page.get_by_label("This server requires an API key")).to_be_focused()
        assert violations(page) == []


def test_what_is_too_wide_can_be_focused_and_scrolled(screen: Page) -> None:
    """The code of "wide" has 200 characters without a space: on no screen do they fit."""
    ask_and_wait(screen, EGGS)
    expect(screen.locator(".answer[tabindex]")).to_have_count(0)  # it fits, and is no stop of the Tab key
    ask_and_wait(screen, "wide")
    code = screen.locator(".answer pre")
    expect(code).to_have_attribute("tabindex", "0")
    code.focus()
    screen.keyboard.press("ArrowRight")
    for _ in range(100):  # the page's policy forbids the eval() of wait_for_function()
        if code.evaluate("(element) => element.scrollLeft > 0"):
            break
        screen.wait_for_timeout(50)
    else:
        raise AssertionError("the code is not scrolled")


def test_a_conversation_by_keyboard_alone(page: Page) -> None:
    """From the focused question to an answer, to a second by editing, and to the history and back."""

    def press_until(selector: str, key: str = "Shift+Tab") -> None:
        for _ in range(30):
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press(key)
        raise AssertionError(selector)

    expect(page.get_by_label("Ask a math question")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(stats(page)).not_to_be_empty()
    press_until("#question", "Tab")
    press_until(".head button")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Ask a math question")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type(EGGS)
    page.keyboard.press("Enter")
    expect(result(page)).to_contain_text("31")
    press_until("#new")
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_count(0)
    press_until("#conversations button", "Tab")
    page.keyboard.press("Enter")
    expect(result(page)).to_contain_text("31")
