"""Cost of a weight of each ggml type in a browser, measured by wllama in a headless Chromium.

python lab/wasm_types.py wasm.json [--rounds 24]

It is measured as by `lab/type_costs.py`, with smaller models, since the browser computes more slowly. The
page runs one question at a time, so that nothing is decoded in batches.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer
from playwright.sync_api import Page, sync_playwright
from thirteen.bench.rounds import ProgressCounter, alternating_order
from thirteen.cli.console import progress_bar
from thirteen.files.cache_folder import temporary_folder
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Progress
from thirteen.lab.random_model import ProbeShape, write_probe_models
from thirteen.lab.type_costs import TYPES, Costs, measured_types, weight_costs, write_table
from thirteen.stats import Doubles
from thirteen.tests.background_server import background_server
from thirteen.web.site import APP, WLLAMA, tensor_layout, wllama_files
from thirteen.web.static_files import site_app

DECODE_TOKENS = 12
PROMPT_TOKENS = 16
_SHAPE = ProbeShape(hidden=1024, ffn=4096, heads=16, kv_heads=4, layers=2, vocabulary=1 << 14)
_SCRIPT = Path(__file__).with_suffix(".js")
_PAGE = _SCRIPT.with_suffix(".html")
_MODELS = "models"
_NOT_ASCII = range(94, 256)  # tokens of the models' vocabulary that are bytes, and no printable ASCII
_TASK = {
    "prompt": "x" * PROMPT_TOKENS,  # letters are tokens of the models
    "tokens": DECODE_TOKENS,
    "banned": [*_NOT_ASCII],  # wllama fails on a text that is not UTF-8
}


@contextmanager
def measuring_page(folder: Path) -> Iterator[tuple[Page, str]]:
    """Open the page that runs models by wllama, whose files go to a folder; yields it and the browser."""
    files = {f"page/{name}": (APP / name).read_bytes() for name in ("engine.js", "expand.js")}
    files |= {f"wllama/{name}": content for name, content in wllama_files().items()}
    files |= {"index.html": _PAGE.read_bytes(), _SCRIPT.name: _SCRIPT.read_bytes()}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / _MODELS).mkdir()
    with background_server(site_app(folder)) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        page.goto(url)
        page.wait_for_function("globalThis.load && crossOriginIsolated")  # else it has no threads
        yield page, f"Chromium/{chromium.version}"


def measure(rounds: int, progress: Progress) -> tuple[Costs, str]:
    """Measure the cost of a weight of each type; also returns the browser.

    The page chooses the number of threads, as for a visitor.
    """
    types = measured_types(TYPES)
    advance = ProgressCounter(progress, (1 + 2 * len(types)) * (2 + rounds))
    with temporary_folder("types") as folder, measuring_page(folder) as (page, browser):
        models = []
        for path in write_probe_models(folder / _MODELS, _SHAPE, types):
            page.evaluate("load", [path.name, tensor_layout(read_header(path))])
            path.unlink()
            models.append(path.name)
            advance()
        run_round(page, models, 0, advance)  # warm-up: the browser compiles what runs often anew
        seconds = np.array([run_round(page, models, number, advance) for number in range(rounds)])
    return weight_costs(_SHAPE, types, seconds), browser


def run_round(page: Page, models: Sequence[str], number: int, advance: ProgressCounter) -> Doubles:
    """Seconds per token of each model in prefill and decode, (models, 2)."""
    seconds = np.empty((len(models), 2))
    for index in alternating_order(len(models), number):
        seconds[index] = page.evaluate("(task) => time(task)", {"model": models[index], **_TASK})
        advance()
    return seconds


def main(output: Path, rounds: int = 24) -> None:
    """Measure the costs, and write them as a table."""
    with progress_bar("types") as progress:
        costs, browser = measure(rounds, progress)
    write_table(output, costs, "wasm", "llama.cpp", f"{WLLAMA}, {browser}")


if __name__ == "__main__":
    typer.run(main)
