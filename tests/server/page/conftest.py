"""Fixtures: a scripted server, and the page in Chromium, which sends no request elsewhere."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from thirteen.web.static_server import background_server

from ...chromium import CHROMIUM
from ..page_server import Script, ScriptedServer
from .browsing import ANSWERS, expect_ready


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Module scope: while Playwright runs, asyncio.run() fails in this thread.
    with sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Script]]:
    script = Script(ANSWERS)
    with background_server(ScriptedServer(script).app) as address:
        yield address, script


@pytest.fixture
def script(server: tuple[str, Script]) -> Script:
    _, script = server
    script.requests.clear()
    script.disconnected.clear()
    script.release.clear()
    return script


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """visit(address, …): open the page; fails on script errors, CSP violations and foreign requests.

    `script` runs before the page's own scripts.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def note_if(wrong: bool, problem: str) -> None:
        if wrong:
            problems.append(problem)

    def visit(address: str, script: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: note_if("Content Security" in message.text, message.text))
        page.on("request", lambda request: note_if(not request.url.startswith(address), request.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(visit: Callable[..., Page], server: tuple[str, Script], script: Script) -> Page:
    page = visit(server[0])
    expect_ready(page)
    return page
