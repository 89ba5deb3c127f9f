"""Fixtures: a scripted server, and the page in Chromium, which sends no request elsewhere."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from ...background_server import background_server
from ...web.conftest import browser, open_page
from ..page_server import Script, ScriptedServer
from .browsing import ANSWERS, expect_ready

__all__ = ["browser", "open_page"]


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
def visit(open_page: Callable[..., Page]) -> Callable[..., Page]:
    return open_page


@pytest.fixture
def page(visit: Callable[..., Page], server: tuple[str, Script], script: Script) -> Page:
    page = visit(server[0])
    expect_ready(page)
    return page
