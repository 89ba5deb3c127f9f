"""Fixtures: Chromium, whose pages send no request elsewhere, a scripted server, a site of a tiny model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import ThirteenError
from thirteen.web.site import wllama_files, write_site

from ..background_server import background_server
from ..chromium import CHROMIUM
from ..runtime.conftest import smollm2, tensors, tiny, write_tiny
from .page_server import PageServer
from .questions import ANSWERS

__all__ = ["smollm2", "tiny", "write_tiny"]

Visit = Callable[..., Any]  # opens a page

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Messages of faults and attacks in the tests.
EXPECTED_MESSAGES = ("Failed to load resource", "TrustedHTML", "integrity")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    """The scripted server."""
    server = PageServer(ANSWERS.copy())
    with background_server(server.app) as server.address:
        yield server


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """visit(address, …): fails on script errors, messages of the browser and foreign requests.

    `script` runs before the page's own scripts; the options are those of a browser context.
    """
    contexts: list[Any] = []
    problems: list[str] = []

    def note(problem: str, wrong: bool = True) -> None:
        if wrong and not any(expected in problem for expected in EXPECTED_MESSAGES):
            problems.append(problem)

    def visit(address: str, script: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda message: note(message.text, message.type == "error"))
        own = (address, f"blob:{address}")
        page.on("request", lambda request: note(request.url, not request.url.startswith(own)))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_page(visit: Visit, server: PageServer) -> Visit:
    """open_page(…): visit the page of the scripted server."""

    def open_page(script: str = "", **options: Any) -> Any:
        page = visit(server.address, script, **options)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    return open_page


@pytest.fixture
def page(open_page: Visit) -> Any:
    return open_page()


@pytest.fixture(scope="session")
def wllama() -> dict[str, bytes]:
    try:
        return wllama_files()
    except ThirteenError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path], wllama: dict[str, bytes]
) -> Path:
    """Site of a tiny model that generates only ASCII, since wllama fails on invalid UTF-8."""
    folder = tmp_path_factory.mktemp("small")
    embedding = tensors()["token_embd.weight"]  # (vocab, width); tied to the output
    embedding[[not " " <= chr(token) <= "~" for token in range(len(embedding))]] = 0
    tiny = write_tiny(folder / "tiny.gguf", {}, {"token_embd.weight": embedding})
    write_site(tiny, folder / "site", wllama, context=256)
    return folder / "site"
