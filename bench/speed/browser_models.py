"""Models in a headless Chromium, timed as the page of `thirteen web` runs them."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from time import monotonic
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ...errors import ModelFileError, RequestError
from ...web.headless_chromium import find_chromium, headless_chromium
from ...web.shared_modules import shared_modules
from ...web.static_server import background_server, isolated_app
from ...web.wllama import wllama_files

_SCRIPT = Path(__file__).with_name("browser_worker.js")
_MODELS = "models"
_PAGE = _SCRIPT.with_suffix(".html")
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
    app = isolated_app(folder, Route("/next", tasks.next, methods=["POST"]))
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
