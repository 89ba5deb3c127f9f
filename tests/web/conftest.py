"""Fixtures: models, a file that is none, wllama, and Chromium with a phone's screen."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import FileError
from thirteen.web.site import PageModel, write_site
from thirteen.web.wllama import wllama_files

from ..chromium import CHROMIUM
from ..runtime.conftest import smollm2, tensors, tiny, write_tiny

__all__ = ["smollm2", "tiny", "write_tiny"]

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
TIMEOUT_MS = 90_000
EXPECTED_MESSAGES = ("Failed to load resource", "TrustedHTML")  # of faults and attacks in the tests


@pytest.fixture
def not_a_model(tmp_path: Path) -> Path:
    path = tmp_path / "no.gguf"
    path.write_text("hello")
    return path


@pytest.fixture(scope="module")
def wllama() -> dict[str, bytes]:
    try:
        return wllama_files()
    except FileError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path], wllama: dict[str, bytes]
) -> Path:
    """Site of a tiny model that generates only ASCII, since wllama fails on invalid UTF-8."""
    folder = tmp_path_factory.mktemp("small")
    embedding = tensors()["token_embd.weight"]  # (vocab, width); tied to the output
    embedding[[not " " <= chr(token) <= "~" for token in range(len(embedding))]] = 0
    tiny = write_tiny(folder / "tiny.gguf", {}, {"token_embd.weight": embedding})
    write_site(PageModel(tiny, name="tiny", context=256), folder / "site", wllama)
    return folder / "site"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """open_page(address, …): fails on script errors, messages of the browser and foreign requests.

    `script` runs before the page's own scripts; the options are those of a browser context.
    """
    contexts: list[Any] = []
    problems: list[str] = []

    def note_if(wrong: bool, problem: str) -> None:
        if wrong and not any(expected in problem for expected in EXPECTED_MESSAGES):
            problems.append(problem)

    def open_page(address: str, script: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.add_init_script(script)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: note_if(message.type == "error", message.text))
        own = (address, f"blob:{address}")
        page.on("request", lambda request: note_if(not request.url.startswith(own), request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def visit(open_page: Callable[..., Any]) -> Callable[..., Any]:
    return partial(open_page, **PHONE)
