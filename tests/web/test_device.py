"""The static site in a real Chromium with a phone's screen, with the real wllama and real models."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize
from thirteen import Engine
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.files.gguf.header import read_header
from thirteen.web.site import tensor_layout, write_site
from thirteen.web.static_files import site_app

from ..axe_core import violations
from ..background_server import background_server
from ..chromium import BROWSER_TEST, LOW_CONTRAST
from ..runtime.conftest import finish
from .conftest import PHONE
from .questions import ask, ask_and_wait, part

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = BROWSER_TEST
expect = playwright.expect

EXPAND = """([name, layout, max]) => import('/page/expand.js').then(async ({ expandTypes }) => {
  const expanded = await expandTypes(await (await fetch(name)).blob(), layout, max);
  return Array.from(new Uint8Array(await expanded.arrayBuffer()));
})"""


@pytest.fixture(scope="module")
def site(small):
    """Address of a site of a tiny model."""
    with background_server(site_app(small)) as address:
        yield address


def ready(page):
    """The page with its model loaded, after the download that it asks for if it has not stored it."""
    button = page.get_by_role("button", name="Download")
    form = page.locator("body:not(.loading) #model option")
    expect(button.or_(form).first).to_be_attached(timeout=60_000)
    if button.is_visible():
        button.click()
    expect(form).to_be_attached(timeout=60_000)
    return page


def test_a_model_answers_online_and_offline(tmp_path, smollm2, wllama, visit):
    """Once the model is ready, the page sends no request; the second visit is with the server stopped."""
    write_site(smollm2, tmp_path / "site", wllama)
    with background_server(site_app(tmp_path / "site")) as address:
        page = ready(visit(address, **PHONE))
        assert page.evaluate("crossOriginIsolated")
        expect(page.get_by_text("Sums in its answers are not checked here")).to_be_visible()
        expect(page.get_by_label("Effort")).to_be_hidden()
        page.evaluate("navigator.serviceWorker.ready.then(() => {})")
        page.wait_for_function("navigator.serviceWorker.controller")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url.partition(":")[0]))
        ask(page, "Write a long story.")
        expect(part(page, "answer")).not_to_be_empty(timeout=60_000)
        page.keyboard.press("Escape")
        expect(part(page, "result")).to_have_text("Stopped")
        assert sent.count("http") <= 1, "more than the icon, for a new address"
    page.reload()
    assert ready(page).evaluate("crossOriginIsolated"), "two values of a header had left it one thread"
    page.get_by_role("button", name="New").click()
    ask_and_wait(page, "Hi")
    with Engine(smollm2, threads=1) as engine:
        native = engine.answer("Hi", calculator=False).text
    assert part(page, "answer").inner_text()[:12] == native[:12]  # later tokens differ: so do the kernels


def test_a_download_is_asked_for_cancelled_and_resumed(site, visit):
    page = visit(site, color_scheme="dark", **PHONE)
    button, status = page.locator("#load button"), page.locator("#status")
    expect(button).to_have_text("Download 1 MB")
    expect(button).to_be_focused()
    assert violations(page) == []
    page.route("**/parts/*", lambda route: None)  # never answered
    page.keyboard.press("Enter")
    expect(button).to_have_text("Cancel")
    page.keyboard.press("Enter")
    expect(status).to_contain_text("Stopped")
    page.route("**/parts/*", lambda route: route.fulfill(body="damaged"))
    page.keyboard.press("Enter")
    expect(status).to_contain_text("is damaged, or cannot be fetched")
    page.unroute_all()
    button.click()
    ask_and_wait(ready(page), "1 + 1")
    assert violations(page) == []
    assert page.evaluate(LOW_CONTRAST) == []


def test_a_conversation_outgrows_the_context_and_the_engine_is_renewed(site, visit):
    """The oldest turns make room; llama.cpp would keep the KV cache of every question."""
    page = ready(visit(site, **PHONE))
    workers: list[str] = []
    page.on("worker", lambda worker: workers.append(worker.url))
    for number in range(10):
        ask_and_wait(page, f"{number} + 2 " * 18)
    expect(part(page, "stats")).to_contain_text("no room for the first")
    assert workers
    ask(page, "4 + 4 " * 200)
    expect(page.get_by_role("alert")).to_contain_text("exceeds the available context size", timeout=60_000)


def test_a_stored_model_is_not_downloaded_again_until_it_is_deleted(site, visit):
    page = ready(visit(site, **PHONE))
    page.route("**/parts/*", lambda route: route.abort())
    page.reload()
    ready(page)
    page.get_by_role("button", name="Delete the stored model").click()
    expect(page.get_by_role("button", name="Delete the stored model")).to_be_hidden()
    ask_and_wait(page, "1 + 1")  # the model in memory still answers
    page.reload()
    expect(page.get_by_role("button", name="Download 1 MB")).to_be_visible()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("Object.defineProperty(navigator, 'deviceMemory', { get: () => 1e-4 })", "can use 1 MB of memory"),
        ("WebAssembly.validate = () => false", "requires WebAssembly with SIMD and 64-bit memory"),
        ("Object.defineProperty(window, 'isSecureContext', { get: () => false })", "requires HTTPS"),
        ("window.fetch = () => Promise.reject(new TypeError('offline'))", "cannot be found"),
    ],
)
def test_what_keeps_a_model_from_running_is_a_sentence(site, visit, script, message):
    page = visit(site, script)
    expect(page.locator("#status")).to_contain_text(message)
    expect(page.get_by_role("button", name="Try again")).to_be_focused()
    expect(page.locator("#ask")).to_be_hidden()


def test_the_page_works_where_nothing_can_be_stored(site, visit):
    script = "caches.open = navigator.serviceWorker.register = () => Promise.reject(new Error('refused'))"
    ask_and_wait(ready(visit(site, script)), "1 + 1")


def test_a_model_that_cannot_be_loaded_is_a_sentence(site, visit):
    page = visit(site)
    part = {"name": "parts/a.bin", "bytes": 8}
    model = {"name": "bad", "file_bytes": 8, "parts": [part]}
    page.route("**/model.json", lambda route: route.fulfill(json=model))
    page.route("**/a.bin", lambda route: route.fulfill(body="GGUF1234"))
    page.reload()
    page.get_by_role("button", name="Download 1 MB").click()
    expect(page.locator("#status")).to_contain_text("could not be loaded", timeout=60_000)


def test_small_types_become_q8_0_with_the_same_weights_if_there_is_room(small, site, visit, tmp_path):
    path, larger, types = small / "types.gguf", tmp_path / "larger.gguf", GGMLQuantizationType
    small_types = (types.Q4_0, types.Q5_0, types.IQ4_NL, types.MXFP4)
    weights = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    writer = GGUFWriter(path, "llama")
    for type_ in (*small_types, types.Q4_1, types.Q4_K):
        rows = quantize_rows(weights, type_, "weights", np.ones(256, np.float32))
        writer.add_tensor(type_.name, np.frombuffer(rows, np.uint8).reshape(64, -1), raw_dtype=type_)
    finish(writer, path)
    page, layout = visit(site), tensor_layout(read_header(path))
    larger.write_bytes(bytes(page.evaluate(EXPAND, [path.name, layout, 2**31])))
    for before, after in zip(GGUFReader(path).tensors, GGUFReader(larger).tensors, strict=True):
        expected = types.Q8_0 if before.tensor_type in small_types else before.tensor_type
        assert (after.name, after.tensor_type) == (before.name, expected)
        weights = [dequantize(tensor.data, tensor.tensor_type) for tensor in (before, after)]
        np.testing.assert_array_equal(*weights)
    assert bytes(page.evaluate(EXPAND, [path.name, layout, 10_000])) == path.read_bytes()
