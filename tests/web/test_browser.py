"""The static site in a real Chromium with a phone's screen, with the real wllama and real models."""

import json
import re
import shutil
from base64 import b64encode
from hashlib import sha256, sha384
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from thirteen.runtime.engine.engine import Engine
from thirteen.web.site import PageModel, write_site
from thirteen.web.static_server import isolated_app

from ..axe_core import violations
from ..background_server import background_server
from ..chromium import BROWSER_TEST, LOW_CONTRAST
from .conftest import TIMEOUT_MS
from .faulty_app import FaultyApp

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = BROWSER_TEST
expect = playwright.expect


# Blocks the download of parts until window.release is set.
BLOCK_PARTS = """const original = fetch; const block = (signal) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))));
window.fetch = (path, ...rest) =>
  String(path).includes('/parts/') && !window.release ? block(rest[0].signal) : original(path, ...rest);"""


@pytest.fixture
def server(small):
    faulty = FaultyApp(small)
    with background_server(faulty) as address:
        yield address, faulty


def download(page: Any) -> Any:
    """Agree to the download, which the page asks for."""
    page.get_by_role("button", name="Download 1 MB").click()
    return page


def ready(page: Any) -> Any:
    """The page with its model loaded, after the download that it asks for if it has not stored it."""
    button, form = page.locator("#retry:visible"), page.locator("html[data-ready] #ask")
    button.or_(form).wait_for()
    if button.is_visible():
        button.click()
    page.locator("html[data-ready] #ask").wait_for()
    expect(page.locator("#model")).not_to_be_empty(timeout=TIMEOUT_MS)
    return page


def ask(page: Any, question: str) -> Any:
    page.get_by_label("Ask a math question").fill(question)
    turns = page.locator(".turn").count()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn").nth(turns).locator(".stats:not(:empty)").wait_for()
    return page.locator(".answer").last.inner_text()


def test_model_answers_online_and_offline_without_further_requests(tmp_path, smollm2, wllama, visit):
    """The second answer comes with the server stopped; once the model is ready, the page sends no request."""
    folder = tmp_path / "site"
    write_site(PageModel(smollm2, name="smollm2"), folder, wllama)
    faulty = FaultyApp(folder)
    with background_server(faulty) as address:
        page = ready(visit(address))
        assert page.evaluate("crossOriginIsolated")
        expect(page.locator("#storage")).to_contain_text("works offline")
        page.wait_for_function("navigator.serviceWorker.controller")
        sent: list[str] = []
        page.on("request", lambda request: request.url.startswith("blob:") or sent.append(request.url))
        before = len(faulty.paths)
        page.get_by_label("Ask a math question").fill("Write a long story.")
        page.keyboard.press("Enter")
        expect(page.locator(".answer")).not_to_be_empty(timeout=TIMEOUT_MS)
        page.keyboard.press("Escape")
        expect(page.locator(".result")).to_have_text("Stopped")
        assert (sent, len(faulty.paths)) == ([], before)
        assert page.evaluate(LOW_CONTRAST) == []
    page.reload()
    assert ready(page).evaluate("crossOriginIsolated"), "two values of a header had left it one thread"
    offline = ask(page, "Hi")
    with Engine(smollm2, threads=1) as engine:
        native = engine.answer("Hi", calculator=False).text
    assert offline[:12] == native[:12]  # later tokens differ, since the kernels differ in the last bits


def test_a_conversation_outgrows_the_context(server, visit):
    """The oldest turns make room, and the page tells; a question without room alone is an error."""
    page = ready(visit(server[0]))
    ask(page, "1 + 1")
    for question in ("2 + 2 " * 20, "3 + 3 " * 20):
        ask(page, question)
        expect(page.locator(".stats").last).to_contain_text("no room for the first")
    page.get_by_label("Ask a math question").fill("4 + 4 " * 200)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(
        "exceeds the available context size", timeout=TIMEOUT_MS
    )


def test_axe_finds_nothing_from_the_download_to_an_answer(server, visit):
    """A download is asked for, and can be cancelled and resumed."""
    address, faulty = server
    page = visit(address, BLOCK_PARTS)
    page.emulate_media(color_scheme="dark")
    expect(page.get_by_role("button", name="Download 1 MB")).to_be_focused()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert not any(path.endswith((".bin", ".wasm", "sw.js")) for path in faulty.paths)
    assert violations(page) == []
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel").wait_for()
    assert violations(page) == []
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    expect(page.locator("#status")).to_contain_text("Stopped")
    assert violations(page) == []
    page.evaluate("window.release = true")
    page.keyboard.press("Enter")
    ask(ready(page), "1 + 1")
    assert violations(page) == []
    assert page.evaluate(LOW_CONTRAST) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("Object.defineProperty(navigator, 'deviceMemory', { get: () => 1e-3 })", "needs 1 MB of memory"),
        ("WebAssembly.validate = () => false", "requires WebAssembly SIMD"),
        ("WebAssembly = undefined", "requires WebAssembly, which"),
        (
            "const all = WebAssembly.validate; WebAssembly.validate = (code) => code[8] !== 5 && all(code)",
            "requires 64-bit WebAssembly memory",
        ),
        ("Object.defineProperty(window, 'isSecureContext', { get: () => false })", "HTTPS"),
    ],
)
def test_unsupported_device_shows_a_message(server, visit, script, message):
    page = visit(server[0], script)
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    expect(page.locator("#ask")).to_be_hidden()


@pytest.mark.parametrize("content", ["<!doctype html>", "null"])
def test_no_description_shows_a_message(server, visit, content):
    address, faulty = server
    faulty.faults["model.json"] = lambda: Response(content)
    expect(visit(address).get_by_role("alert")).to_contain_text("model.json describes none")


def test_damaged_or_missing_part_shows_a_message_and_can_be_retried(server, visit):
    address, faulty = server
    faulty.faults[".bin"] = lambda: Response(b"damaged")
    page = download(visit(address))
    expect(page.get_by_role("alert")).to_contain_text("is damaged on the server")
    faulty.faults[".bin"] = lambda: Response(status_code=404)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("status 404")
    faulty.faults.clear()
    page.get_by_role("button", name="Try again").click()
    ready(page)


def test_part_damaged_in_the_cache_is_downloaded_again(server, visit):
    address, faulty = server
    page = ready(visit(address))
    damage = """async () => { const name = (await caches.keys()).find((n) => n.includes('model'));
      const cache = await caches.open(name); const [key] = await cache.keys();
      await cache.put(key, new Response('damaged')); }"""
    page.evaluate(damage)
    downloads = sum(path.endswith(".bin") for path in faulty.paths)
    ready(page.reload() and page)
    assert sum(path.endswith(".bin") for path in faulty.paths) == downloads + 1


def test_stored_model_is_shown_and_can_be_deleted(server, visit):
    address, faulty = server
    page = ready(visit(address))
    expect(page.locator("#storage")).to_have_text(re.compile(r"stored here \(\d+ MB with the page\)"))
    page.evaluate("caches.open(`thirteen-model-${location.origin}/another/-0`)")
    page.get_by_role("button", name="Delete the stored model").click()
    expect(page.locator("#storage")).to_contain_text("the next visit downloads it again")
    expect(page.locator("#forget")).to_be_hidden()
    kept = [name for name in page.evaluate("caches.keys()") if "model" in name]
    assert len(kept) == 1 and "another" in kept[0]  # that of another folder of the site
    ask(page, "1 + 1")  # the model in memory still answers
    downloads = sum(path.endswith(".bin") for path in faulty.paths)
    ready(page.reload() and page)
    assert sum(path.endswith(".bin") for path in faulty.paths) > downloads


def test_install_button_asks_once(server, visit):
    """Chromium sends the event after a while only; here the test sends it."""
    page = ready(visit(server[0]))
    button = page.get_by_role("button", name="Install this page")
    expect(button).to_be_hidden()
    page.evaluate(
        """() => { const event = new Event('beforeinstallprompt', { cancelable: true });
        event.prompt = () => (window.prompts = (window.prompts ?? 0) + 1);
        window.dispatchEvent(event); window.prevented = event.defaultPrevented; }"""
    )
    assert violations(page) == []
    button.click()
    expect(button).to_be_hidden()
    assert page.evaluate("[window.prompts, window.prevented]") == [1, True]


def test_time_left_follows_the_speed_of_the_last_seconds(server, visit):
    script = """async () => { const { TimeLeft, formatSeconds } = await import('./time_left.js');
      const left = new TimeLeft(1000); const at = (ms, bytes) => left.seconds(bytes, ms);
      const found = [at(0, 0), at(500, 50), at(1000, 100), at(7000, 700), at(8000, 800), at(20000, 800),
        at(21500, 700)];
      return [found, [0.2, 89, 150].map(formatSeconds)]; }"""
    found, texts = visit(server[0]).evaluate(script)
    # nothing yet, too early, 100 a second; a sample alone; 100 a second again; nothing arrived; a part anew
    assert found == [None, None, 9, None, 2, None, None]
    assert texts == ["1 s", "89 s", "3 min"]


def test_page_works_without_cache_storage(server, visit):
    page = ready(visit(server[0], "caches.open = () => Promise.reject(new Error('refused'))"))
    expect(page.locator("#storage")).to_contain_text("cannot store the model")


def test_offline_without_the_model_shows_a_message(server, visit):
    page = visit(server[0], "window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    expect(page.get_by_role("alert")).to_contain_text("cannot be read: Failed to fetch. Check the address")


def test_offline_use_is_not_promised_without_a_service_worker(server, visit):
    refused = "navigator.serviceWorker.register = () => Promise.reject(new Error('refused'))"
    page = ready(visit(server[0], refused))
    expect(page.locator("#storage")).to_have_text(re.compile(r"stored here \(\d+ MB with the page\)\.$"))


UPDATE = """async () => {
  const worker = await navigator.serviceWorker.getRegistration();
  await worker.update();
  for (let n = 0; n < 200 && !worker.waiting; n++) await new Promise((resolve) => setTimeout(resolve, 100));
  return Boolean(worker.waiting);
}"""
FIRST_LINE = "fetch('time_left.js').then((file) => file.text()).then((text) => text.split('\\n')[0])"


def test_an_old_page_keeps_its_files_until_it_is_closed(small, tmp_path, visit):
    """A new service worker deleted the files that an open page had yet to fetch."""
    site = shutil.copytree(small, tmp_path / "site")
    with background_server(isolated_app(site)) as address:
        page = ready(visit(address))
        page.evaluate("navigator.serviceWorker.ready.then(() => {})")
        write_version(site, "new")
        assert page.evaluate(UPDATE), "the new worker must wait"
        assert page.evaluate(FIRST_LINE) == "// Estimates when a download ends."
        for _ in range(20):  # the browser activates the new worker a moment after the page is closed
            page.goto("about:blank")
            page.wait_for_timeout(500)
            page.goto(address)
            if page.evaluate(FIRST_LINE) == "// new":
                break
        assert page.evaluate(FIRST_LINE) == "// new"


def write_version(site: Path, version: str) -> None:
    """Change a file of a site, and its hash in the service worker."""
    file, worker = site / "time_left.js", site / "sw.js"
    before, after = file.read_bytes(), f"// {version}\n".encode() + file.read_bytes()
    file.write_bytes(after)
    code = worker.read_text().replace(_digest(before), _digest(after))
    worker.write_text(code.replace('const VERSION = "', f'const VERSION = "{version}'))


def _digest(content: bytes) -> str:
    return b64encode(sha384(content).digest()).decode()


def test_unloadable_model_shows_a_message(tmp_path, write_tiny, wllama, visit):
    folder = tmp_path / "site"
    write_site(PageModel(write_tiny(tmp_path / "tiny.gguf")), folder, wllama)
    (part,) = (folder / "parts").iterdir()
    page_model = json.loads((folder / "model.json").read_text())
    part.write_bytes(b"GGUF" + bytes(100))
    page_model["parts"][0]["sha256"] = sha256(part.read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(page_model))
    with background_server(isolated_app(folder)) as address:
        page = download(visit(address))
        expect(page.get_by_role("alert")).to_contain_text("could not be loaded", timeout=TIMEOUT_MS)
