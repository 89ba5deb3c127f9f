"""The README's picture of the page that runs in a browser: the embedded model at a phone's size, offline."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from thirteen.models.fetch import embedded
from thirteen.tests.runtime.server.page_server import served
from thirteen.web.site import write_site
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import wllama_files

QUESTION = "If I have 3 apples and buy 4 more, how many apples do I have?"
PHONE = {"viewport": {"width": 390, "height": 760}, "device_scale_factor": 2, "is_mobile": True}
PATIENCE_MS = 120_000


def screenshot(target: Path) -> None:
    """Visit, go offline, ask, and write what is seen then."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        write_site(embedded(), Path(name) / "site", wllama_files(), name="smollm2-135m")
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_context(**PHONE).new_page()
        with served(isolated_app(Path(name) / "site")) as address:
            page.goto(address)
            page.locator("html[data-ready] #ask").wait_for(timeout=PATIENCE_MS)
        page.get_by_label("Ask a math question").fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        page.locator("#figures:not(:empty)").wait_for(timeout=PATIENCE_MS)
        print(page.locator("#figures").inner_text())
        page.get_by_label("Ask a math question").blur()
        page.screenshot(path=target)
        chromium.close()


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]))
