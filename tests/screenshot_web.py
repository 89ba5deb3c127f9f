"""Takes the README's screenshot of the static site: the embedded model, offline, on a phone's screen."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright
from thirteen.models.fetch import embedded
from thirteen.tests.runtime.server.page_server import serve_app
from thirteen.web.site import write_site
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import wllama_files

QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
PHONE: ViewportSize = {"width": 390, "height": 760}
TIMEOUT_MS = 120_000


def screenshot(target: Path) -> None:
    """Load the site, stop its server, ask the question and write a screenshot."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        write_site(embedded(), Path(name) / "site", wllama_files(), name="smollm2-135m")
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_context(viewport=PHONE, device_scale_factor=2, is_mobile=True).new_page()
        with serve_app(isolated_app(Path(name) / "site")) as url:
            page.goto(url)
            page.locator("html[data-ready] #ask").wait_for(timeout=TIMEOUT_MS)
        page.get_by_label("Ask a math question").fill(QUESTION)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator(".stats:not(:empty)").wait_for(timeout=TIMEOUT_MS)
        print(page.locator(".stats").inner_text())
        page.get_by_label("Ask a math question").blur()
        page.screenshot(path=target)
        chromium.close()


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]))
