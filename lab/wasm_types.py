"""Cost of a weight of each ggml type in a browser, measured by wllama in a headless Chromium.

python lab/wasm_types.py [--output wasm.json] [--rounds 24] [--json]

It is measured as by `thirteen bench types`, with smaller models, since the browser computes more slowly. The
page runs one question at a time, so that nothing is decoded in batches.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from time import monotonic
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from thirteen.bench.harness.environment import report_head
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.bench.harness.workload import Workload
from thirteen.bench.speed.probe_models import ProbeShape, write_probe_models
from thirteen.bench.speed.type_costs import (
    TYPES,
    TypesReport,
    measured_types,
    type_costs_table,
    types_report,
    write_costs,
)
from thirteen.cli.console import progress_bar, show_report
from thirteen.errors import ModelFileError, RequestError
from thirteen.files.progress import Progress, no_progress
from thirteen.files.temporary_folder import temporary_folder
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import FloatArray
from thirteen.stats.paired_ratio import ROUNDS_MIN
from thirteen.tests.background_server import background_server
from thirteen.web.shared_modules import shared_modules
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import VERSION, wllama_files

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_END_S = 10


def find_chromium() -> Path:
    """Path of the installed Chromium or Chrome.

    Raises:
        RequestError: none is on PATH.
    """
    for name in _BROWSERS:
        if found := shutil.which(name):
            return Path(found)
    raise RequestError(f"a browser is needed, but none of {', '.join(_BROWSERS)} is on PATH")


@contextmanager
def headless_chromium(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Open a page in a new profile; the browser ends with the block.

    Args:
        url: address of the page.

    Yields:
        The browser's process.

    Raises:
        RequestError: Chromium is not installed.
    """
    program = find_chromium()
    # Not in the cache folder: on Linux, Chromium puts a socket into the profile, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="thirteen-chromium-", ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium's sandbox does not work for root
        command = [str(program), *options, url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_SCRIPT = Path(__file__).with_suffix(".js")
_MODELS = "models"
_PAGE = _SCRIPT.with_suffix(".html")
_NOT_ASCII = range(94, 256)  # tokens of the models' vocabulary that are bytes, and no printable ASCII
_TASK_S = 120  # longest task: a large model to load, or the slowest type


@dataclass(frozen=True, slots=True)
class BrowserTimes:
    """Times of one completion.

    Attributes:
        prefill_s: seconds until the first token was sampled.
        prompt_tokens: tokens of the prompt.
        decode_s: seconds from the first token to the last.
        decoded: tokens after the first.
    """

    prefill_s: float
    prompt_tokens: int
    decode_s: float
    decoded: int


class _Tasks:
    """Tasks for the page, and their results. The page asks for the next task with the result of the last."""

    def __init__(self) -> None:
        self.waiting, self.results = Queue[dict[str, Any]](), Queue[dict[str, Any]]()

    async def next(self, request: Request) -> JSONResponse:
        self.results.put(await request.json())
        return JSONResponse(await run_in_threadpool(self.waiting.get))


class BrowserModels:
    """Models that a browser has loaded. They stay loaded until the browser ends.

    Attributes:
        folder: where a model must be to be loaded.
        browser: name and version of the browser.
        threads: threads of each model; 0 before the first.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], tasks: _Tasks) -> None:
        """Wait for the page. Use browser_models() instead."""
        self.folder, self._process, self._tasks = folder, process, tasks
        self.threads = 0
        page = self._result()
        if not page["isolated"]:
            raise RequestError("the browser does not isolate the page, so that it has no threads")
        found = re.search(r"Chrom\S*/[0-9.]+", page["browser"])
        self.browser = found[0] if found else str(page["browser"])

    def load(self, model: Path) -> None:
        """Load a model from the folder; its file is not needed afterwards.

        Raises:
            ModelFileError: the browser has too little memory, or wllama rejects the file.
        """
        self.threads = self._run(task="load", model=model.name)["threads"]

    def time(self, model: Path, prompt: str, tokens: int, banned: Sequence[int] = ()) -> BrowserTimes:
        """Time a prompt, of which nothing is cached, and the decoding of tokens after the first.

        Args:
            model: a loaded model.
            prompt: text of the prompt.
            tokens: number of tokens after the first.
            banned: tokens that must not be sampled. wllama fails on a text that is not UTF-8.

        Raises:
            ModelFileError: wllama fails.
        """
        task = {"model": model.name, "prompt": prompt, "tokens": tokens, "banned": list(banned)}
        return BrowserTimes(**self._run(task="time", **task))

    def _run(self, **task: Any) -> dict[str, Any]:
        self._tasks.waiting.put(task)
        result = self._result()
        if "error" in result:
            raise ModelFileError(f"{task['model']}: {result['error']}")
        return result

    def _result(self) -> dict[str, Any]:
        end = monotonic() + _TASK_S
        while monotonic() < end:
            try:
                return self._tasks.results.get(timeout=1)
            except Empty:
                if self._process.poll() is not None:
                    raise RequestError(f"the browser ended with status {self._process.returncode}") from None
        raise RequestError(f"the browser did not answer within {_TASK_S} s")


@contextmanager
def browser_models(folder: Path) -> Iterator[BrowserModels]:
    """Start a browser on a page that runs models by wllama.

    Args:
        folder: an empty folder for the page's files.

    Raises:
        RequestError: Chromium is not installed, or does not start.
        DownloadError: wllama cannot be downloaded.
    """
    find_chromium()  # before the download
    _write_page(folder)
    tasks = _Tasks()
    app = isolated_app(folder)
    app.routes.insert(0, Route("/next", tasks.next, methods=["POST"]))  # before the files
    with background_server(app) as url, headless_chromium(url) as process:
        try:
            yield BrowserModels(folder / _MODELS, process, tasks)
        finally:
            tasks.waiting.put({"task": "end"})


def _write_page(folder: Path) -> None:
    files = shared_modules() | {f"wllama/{name}": content for name, content in wllama_files().items()}
    files |= {"index.html": _PAGE.read_bytes(), _SCRIPT.name: _SCRIPT.read_bytes()}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / _MODELS).mkdir()


TARGET = "wasm"
ROUNDS = 24
DECODE_TOKENS = 12
PROMPT_TOKENS = 16
_SHAPE = ProbeShape(hidden=1024, ffn=4096, heads=16, kv_heads=4, layers=2, vocabulary=1 << 14)
_PROMPT = "x" * PROMPT_TOKENS  # letters are tokens of the models


def run_wasm_type_costs(
    *,
    types: Sequence[str] = TYPES,
    rounds: int = ROUNDS,
    shape: ProbeShape = _SHAPE,
    progress: Progress = no_progress,
) -> TypesReport:
    """Measure the cost of a weight of each type in a headless Chromium.

    The page chooses the number of threads, as on a visitor's device.

    Args:
        types: names of types; the reference Q4_K is always measured.
        rounds: number of rounds, at least 8; every other one has the reverse order.
        shape: shape of the models.
        progress: called with steps done and in all: models loaded, and iterations.

    Raises:
        OutputError: a type is unknown, or the disk has no room for the models.
        RequestError: a number is out of range, Chromium is not installed, or it ended.
        ModelFileError: wllama cannot run one of the types.
        DownloadError: wllama cannot be downloaded.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    ggml_types = measured_types(types)
    advance = ProgressCounter(progress, (1 + 2 * len(ggml_types)) * (2 + rounds))
    head = report_head()
    with temporary_folder("types") as folder, browser_models(folder) as browser:
        models = _load(browser, shape, ggml_types, advance)
        _run_round(browser, models, 0, advance)  # warm-up: the browser compiles what runs often anew
        seconds = np.array([_run_round(browser, models, number, advance) for number in range(rounds)])
        workload = Workload(PROMPT_TOKENS, DECODE_TOKENS, browser.threads, PROMPT_TOKENS)
        engine = f"wllama {VERSION}, {browser.browser}"
    return types_report(head, workload, shape, ggml_types, seconds, TARGET, engine)


def _load(
    browser: BrowserModels, shape: ProbeShape, types: Sequence[GGMLQuantizationType], advance: ProgressCounter
) -> list[Path]:
    models = []
    for path in write_probe_models(browser.folder, shape, types):
        browser.load(path)
        path.unlink()
        models.append(path)
        advance()
    return models


def _run_round(
    browser: BrowserModels, models: Sequence[Path], number: int, advance: ProgressCounter
) -> FloatArray:
    """Seconds per token of each model in prefill and decode, (models, 2)."""
    seconds = np.empty((len(models), 2))
    for index in alternating_order(len(models), number):
        times = browser.time(models[index], _PROMPT, DECODE_TOKENS, _NOT_ASCII)
        seconds[index] = times.prefill_s / times.prompt_tokens, times.decode_s / times.decoded
        advance()
    return seconds


def main() -> None:
    """Print the costs, and write them for `plan` and `convert --costs`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("types") as progress:
        report = run_wasm_type_costs(rounds=given.rounds, progress=progress)
    if given.output:
        write_costs(report, given.output)
    show_report(given.json, report, type_costs_table)


if __name__ == "__main__":
    main()
