"""The page on a visitor's device: a real Chromium of a phone's size, the real wllama, real models."""

import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from thirteen.errors import DownloadError
from thirteen.runtime.engine.engine import Engine
from thirteen.web.site import write_site
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import wllama_files

from ..runtime.conftest import tensors
from ..runtime.server.page_server import serve_app
from ..runtime.server.test_page import PALE
from .arithmetic_vectors import FILE, vectors

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"
)
expect = playwright.expect

PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
PATIENCE_MS = 30_000
CHECKED = "(texts) => import('./calculator.js').then(({ check }) => texts.map((text) => check(text)))"

HELD = """const real = fetch; const never = (signal) =>
  new Promise((_, no) => signal.addEventListener('abort', () => no(new Error('aborted'))));
window.fetch = (path, ...rest) =>
  String(path).startsWith('parts/') && !window.go ? never(rest[0].signal) : real(path, ...rest);"""

Server = tuple[str, "Faulty"]
Visit = Callable[..., Any]


class Faulty:
    """An application some of whose answers are changed: `faults` has a response for the end of a path."""

    def __init__(self, folder: Path) -> None:
        self._app, self.faults = isolated_app(folder), dict[str, Callable[[], Response]]()
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        self.paths.append(path)
        fault = next((fault for end, fault in self.faults.items() if path.endswith(end)), None)
        await (fault() if fault else self._app)(scope, receive, send)


@pytest.fixture(scope="module")
def wllama() -> dict[str, bytes]:
    try:
        return wllama_files()
    except DownloadError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: Any, write_tiny: Callable[..., Path], wllama: dict[str, bytes]) -> Path:
    """The folder of a tiny model, which writes nothing but ASCII: wllama fails at what is no UTF-8."""
    folder = tmp_path_factory.mktemp("small")
    embedding = tensors()["token_embd.weight"]  # (vocabulary, width), of the output too
    embedding[[not " " <= chr(token) <= "~" for token in range(len(embedding))]] = 0
    tiny = write_tiny(folder / "tiny.gguf", {}, {"token_embd.weight": embedding})
    write_site(tiny, folder / "site", wllama, name="tiny", context=256)
    return folder / "site"


@pytest.fixture
def server(small: Path) -> Iterator[Server]:
    faulty = Faulty(small)
    with serve_app(faulty) as address:
        yield address, faulty


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """visit(address, script=""): a new visitor's page; nothing comes from elsewhere, and no script fails."""
    contexts, complaints = [], []

    def visit(address: str, script: str = "") -> Any:
        context = browser.new_context(**PHONE)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(script)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        own = (address, f"blob:{address}")
        page.on("request", lambda sent: sent.url.startswith(own) or complaints.append(sent.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    expected = "Failed to load resource"  # what the browser says of a fault that a test has made
    assert [complaint for complaint in complaints if expected not in complaint] == []


def ready(page: Any) -> Any:
    page.locator("html[data-ready] #ask").wait_for()
    expect(page.locator("#model")).not_to_be_empty(timeout=PATIENCE_MS)
    return page


def ask(page: Any, question: str) -> Any:
    page.get_by_label("Ask a math question").fill(question)
    page.get_by_role("button", name="Ask").click()
    page.locator("#figures:not(:empty)").wait_for()
    return page.locator("#text").inner_text()


def test_the_model_answers_online_then_offline_and_nothing_leaves_the_device(
    tmp_path: Path, smollm2: Path, wllama: dict[str, bytes], visit: Visit
) -> None:
    """The server is gone the second time, and from the moment the model is ready nobody is asked anything."""
    folder = tmp_path / "site"
    write_site(smollm2, folder, wllama, name="smollm2")
    faulty = Faulty(folder)
    with serve_app(faulty) as address:
        page = ready(visit(address))
        assert page.evaluate("crossOriginIsolated")
        expect(page.locator("#stored")).to_contain_text("works without a network")
        page.wait_for_function("navigator.serviceWorker.controller")
        sent: list[str] = []
        page.on("request", lambda request: request.url.startswith("blob:") or sent.append(request.url))
        before = len(faulty.paths)
        page.get_by_label("Ask a math question").fill("Write a long story.")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#text")).not_to_be_empty(timeout=PATIENCE_MS)
        page.keyboard.press("Escape")
        expect(page.locator("output")).to_have_text("Stopped")
        assert (sent, len(faulty.paths)) == ([], before)
        assert page.evaluate(PALE) == []
    page.reload()
    offline = ask(ready(page), "Hi")
    with Engine(smollm2, threads=1) as engine:
        native = engine.answer("Hi", calculator=False).text
    assert offline[:12] == native[:12]  # kernels differ in the last bits, and at some token that decides


def test_a_vote_is_taken_by_keyboard_alone(server: Server, visit: Visit) -> None:
    page = ready(visit(server[0]))
    page.get_by_label("Votes").select_option("3")
    page.get_by_label("Ask a math question").focus()
    page.keyboard.type("1 + 1")
    page.keyboard.press("Control+Enter")
    page.locator("#figures:not(:empty)").wait_for()
    expect(page.get_by_role("button", name="Ask")).to_be_visible()


def test_a_download_can_be_cancelled_and_taken_up_again(server: Server, visit: Visit) -> None:
    page = visit(server[0], HELD)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#doing")).to_contain_text("Stopped")
    page.evaluate("window.go = true")
    page.get_by_role("button", name="Try again").click()
    ready(page)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("Object.defineProperty(navigator, 'deviceMemory', { get: () => 1e-3 })", "needs 1 MB of memory"),
        ("WebAssembly.validate = () => false", "no SIMD"),
        ("WebAssembly = undefined", "cannot run WebAssembly"),
        ("Object.defineProperty(window, 'isSecureContext', { get: () => false })", "HTTPS"),
    ],
)
def test_what_a_device_lacks_is_a_sentence(server: Server, visit: Visit, script: str, said: str) -> None:
    page = visit(server[0], script)
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    expect(page.locator("#ask")).to_be_hidden()


def test_a_file_that_is_too_large_is_a_sentence(server: Server, visit: Visit) -> None:
    address, faulty = server
    faulty.faults["model.json"] = lambda: Response(json.dumps({"name": "x", "file_bytes": 3_000_000_000}))
    expect(visit(address).get_by_role("alert")).to_contain_text("The model has 3.0 GB")


def test_a_damaged_or_a_missing_part_is_a_sentence(server: Server, visit: Visit) -> None:
    """And once it is mended, the same page goes on."""
    address, faulty = server
    faulty.faults[".bin"] = lambda: Response(b"damaged")
    page = visit(address)
    expect(page.get_by_role("alert")).to_contain_text("is damaged where this page comes from")
    faulty.faults[".bin"] = lambda: Response(status_code=404)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("status 404")
    faulty.faults.clear()
    page.get_by_role("button", name="Try again").click()
    ready(page)


def test_a_part_that_was_damaged_where_it_is_kept_is_fetched_anew(server: Server, visit: Visit) -> None:
    address, faulty = server
    page = ready(visit(address))
    damage = """async () => { const name = (await caches.keys()).find((n) => n.includes('model'));
      const cache = await caches.open(name); const [key] = await cache.keys();
      await cache.put(key, new Response('damaged')); }"""
    page.evaluate(damage)
    fetched = sum(path.endswith(".bin") for path in faulty.paths)
    ready(page.reload() and page)
    assert sum(path.endswith(".bin") for path in faulty.paths) == fetched + 1


def test_where_nothing_is_kept_the_page_says_so_and_works(server: Server, visit: Visit) -> None:
    page = ready(visit(server[0], "caches.open = () => Promise.reject(new Error('refused'))"))
    expect(page.locator("#stored")).to_contain_text("keeps nothing of this size")


def test_without_a_network_and_without_the_model_it_is_a_sentence(server: Server, visit: Visit) -> None:
    page = visit(server[0], "window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    expect(page.get_by_role("alert")).to_contain_text("The network cannot be reached")


def test_a_file_that_cannot_be_run_is_a_sentence(
    tmp_path: Path, write_tiny: Callable[..., Path], wllama: dict[str, bytes], visit: Visit
) -> None:
    folder = tmp_path / "site"
    write_site(write_tiny(tmp_path / "tiny.gguf"), folder, wllama)
    (part,) = (folder / "parts").iterdir()
    page_model = json.loads((folder / "model.json").read_text())
    part.write_bytes(b"GGUF" + bytes(100))
    page_model["parts"][0]["sha256"] = sha256(part.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(page_model))
    with serve_app(isolated_app(folder)) as address:
        expect(visit(address).get_by_role("alert")).to_contain_text(
            "could not be loaded", timeout=PATIENCE_MS
        )


def test_the_browser_reads_answers_as_python_does(server: Server, visit: Visit) -> None:
    known = json.loads(FILE.read_text("utf-8"))
    found = visit(server[0]).evaluate(CHECKED, [vector["text"] for vector in known])
    assert [{"text": vector["text"], **one} for vector, one in zip(known, found, strict=True)] == known


def test_the_vectors_are_what_python_reads_now() -> None:
    """Else: python tests/vectors.py tests/data/arithmetic.json"""
    assert json.loads(FILE.read_text("utf-8")) == vectors()
    assert sum(len(vector["steps"]) for vector in vectors()) > 300
