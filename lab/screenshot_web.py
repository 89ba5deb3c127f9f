"""Takes the screenshot of the static site, offline, on a phone's screen, and times the second visit.

screenshot_web.py PICTURE [MODEL]; by default the embedded model.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import ViewportSize, sync_playwright
from thirteen.models.embedded import embedded
from thirteen.tests.background_server import background_server
from thirteen.web.site import PageModel, write_site
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import wllama_files

QUESTION = "Sara had 20 dollars and spent 6. How much has she left?"
PHONE: ViewportSize = {"width": 390, "height": 630}
TIMEOUT_MS = 300_000


def screenshot(target: Path, model: Annotated[Path | None, typer.Argument()] = None) -> None:
    """Load the site, stop its server, load the site again, ask the question and write a screenshot."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        write_site(PageModel(model or embedded(), name="smollm2-135m"), Path(name) / "site", wllama_files())
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_context(viewport=PHONE, device_scale_factor=2, is_mobile=True).new_page()
        ready = page.locator("html[data-ready]:has(#model option) #ask")
        with background_server(isolated_app(Path(name) / "site")) as url:
            page.goto(url)
            page.get_by_role("button", name="Download").click()
            ready.wait_for(timeout=TIMEOUT_MS)
            page.wait_for_function("navigator.serviceWorker.controller")
        start = time.perf_counter()
        page.reload()
        ready.wait_for(timeout=TIMEOUT_MS)
        loaded_s = time.perf_counter() - start
        page.get_by_label("Ask a math question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.locator(".answer:not(:empty)").wait_for(timeout=TIMEOUT_MS)
        answer_s = time.perf_counter() - start
        page.locator(".stats:not(:empty)").wait_for(timeout=TIMEOUT_MS)
        print(f"second visit: ready after {loaded_s:.1f} s, first words of an answer after {answer_s:.1f} s")
        print(page.locator(".stats").inner_text())
        page.get_by_label("Ask a math question").blur()
        page.screenshot(path=target)
        chromium.close()


if __name__ == "__main__":
    typer.run(screenshot)
