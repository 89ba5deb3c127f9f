"""Takes the README's screenshot of the page: `thirteen serve` with the embedded model, in Chromium."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from playwright.sync_api import ViewportSize, sync_playwright
from thirteen.models.embedded import embedded

ADAPTER = "smollm2-135m-sums-13"
QUESTIONS = (
    "Sara had 20 dollars and spent 6. How much has she left?",
    "She buys 3 pens for $1.20 each. What do they cost?",
)
SIZE: ViewportSize = {"width": 1280, "height": 780}
TIMEOUT_MS = 300_000
ONE_THREAD = ("--threads", "1")  # several threads busy-wait for each other, very slow on a loaded machine
THIRTEEN = (sys.executable, "-m", "thirteen")


@contextmanager
def serve() -> Iterator[str]:
    """Serve the embedded model and its adapter; yields the URL."""
    with tempfile.TemporaryDirectory() as folder:
        lora = Path(folder, f"{ADAPTER}.gguf")
        export = (*THIRTEEN, "adapter", "export", ADAPTER, "--base", str(embedded()), "--output", str(lora))
        subprocess.run(export, check=True, capture_output=True)
        command = (*THIRTEEN, "serve", str(embedded()), "--name", "smollm2-135m", "--port", "0", *ONE_THREAD)
        with subprocess.Popen(
            (*command, "--adapter", f"sums-13={lora}"), stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stderr
            try:
                yield next(match[0] for line in server.stderr if (match := re.search(r"http://\S+", line)))
            finally:
                server.terminate()


def screenshot(target: Path) -> None:
    """Ask the questions and write a screenshot."""
    with serve() as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(url)
        for question in QUESTIONS:
            page.get_by_label("Ask a math question").fill(question)
            page.keyboard.press("Enter")
            page.locator(".turn").last.locator(".stats:not(:empty)").wait_for(timeout=TIMEOUT_MS)
        page.get_by_label("Ask a math question").blur()
        page.screenshot(path=target)
        chromium.close()


if __name__ == "__main__":
    typer.run(screenshot)
