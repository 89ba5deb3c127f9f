"""The README's picture of the page: `thirteen serve` with the embedded model, asked in a Chromium."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright
from thirteen.models.fetch import embedded

ADAPTER = "smollm2-135m-gsm8k-13"
QUESTIONS = (  # the second goes wrong, and the page says so
    "Sara had 20 dollars and spent 6. How much has she left?",
    "Ann reads 12 pages a day. How many pages does she read in 7 days?",
    "A pen costs $1.20. What do 3 pens cost?",
)
SIZE = {"width": 1280, "height": 600}
PATIENCE_MS = 120_000
ONE_THREAD = ("--threads", "1")  # several wait for each other, which takes for ever on a busy machine
THIRTEEN = (sys.executable, "-m", "thirteen")


@contextmanager
def served() -> Iterator[str]:
    """The address at which the embedded model and its adapter are served meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        lora = Path(folder, f"{ADAPTER}.gguf")
        export = (*THIRTEEN, "adapter", "export", ADAPTER, "--base", str(embedded()), "--output", str(lora))
        subprocess.run(export, check=True, capture_output=True)
        serve = (*THIRTEEN, "serve", str(embedded()), "--name", "smollm2-135m", "--port", "0", *ONE_THREAD)
        with subprocess.Popen(
            (*serve, "--adapter", f"gsm8k-13={lora}"), stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            finally:
                server.terminate()


def screenshot(target: Path) -> None:
    """Ask some questions and write what is seen then."""
    with served() as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.5)
        page.goto(address)
        for question in QUESTIONS:
            page.get_by_label("Ask a math question").fill(question)
            page.keyboard.press("Control+Enter")
            page.locator("#figures:not(:empty)").wait_for(timeout=PATIENCE_MS)
        page.get_by_label("Ask a math question").blur()
        page.screenshot(path=target)
        chromium.close()


if __name__ == "__main__":
    screenshot(Path(sys.argv[1]))
