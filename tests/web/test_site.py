"""Files of the static site and their local server, without a browser."""

import json
import socket
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256, sha384

import httpx
import pytest
from starlette.applications import Starlette
from thirteen.errors import FileError, OptionError, OutputError, RequestError
from thirteen.web.shared_modules import shared_modules
from thirteen.web.site import APP, PART_BYTES, PageModel, write_site
from thirteen.web.static_files import PAGE_FILES, page_routes
from thirteen.web.static_server import isolated_app
from thirteen.web.wllama import wllama_files

from ..background_server import background_server

ENGINE = {"index.min.js": b"export class Wllama {}", "wllama.wasm": b"\0asm", "LICENCE": b"MIT"}


@pytest.fixture
def site(tiny, tmp_path):
    write_site(PageModel(tiny, name="small", context=128), tmp_path / "site", ENGINE)
    return tmp_path / "site"


def test_parts_join_to_the_model_and_are_named_by_their_hashes(tmp_path, tiny):
    large = tmp_path / "large.gguf"
    large.write_bytes(tiny.read_bytes() + bytes(PART_BYTES))
    result = write_site(PageModel(large), tmp_path / "site", ENGINE)
    model = json.loads((tmp_path / "site/model.json").read_text())
    parts = [(tmp_path / "site" / part["name"]).read_bytes() for part in model["parts"]]
    assert b"".join(parts) == large.read_bytes()
    assert [sha256(part).hexdigest() for part in parts] == [part["sha256"] for part in model["parts"]]
    assert all(part["name"] == f"parts/{part['sha256'][:16]}.bin" for part in model["parts"])
    assert (result.parts, model["name"], model["file_bytes"]) == (2, "large", large.stat().st_size)
    written = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert (result.files, result.nbytes) == (len(written), sum(path.stat().st_size for path in written))


def test_service_worker_contains_the_hash_of_every_other_file_but_the_parts(site):
    code = (site / "sw.js").read_text()
    shell = json.loads(code.partition("const SHELL = ")[2].partition(";\n")[0])
    others = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert shell.keys() == {name for name in others if name != "sw.js" and not name.startswith("parts/")}
    for name, integrity in shell.items():
        digest = sha384((site / name).read_bytes()).digest()
        assert integrity == f"sha384-{b64encode(digest).decode()}"


def test_only_the_client_stands_for_another_file():
    page, shared, app = set(PAGE_FILES), set(shared_modules()), {path.name for path in APP.iterdir()}
    assert not shared & (page | app)
    assert page & app == {"client.js"}


def test_page_connects_to_its_own_origin_and_mentions_no_server(site):
    page = (site / "index.html").read_text()
    assert "connect-src 'self'" in page
    assert "stay on this device" in page
    assert "server" not in page.replace("unlock", "").split("<form id")[0]


@pytest.mark.parametrize("theirs", ["model.json", "parts/mine.bin"])
def test_what_another_program_has_written_stays(tmp_path, tiny, theirs):
    """TensorFlow.js calls its models model.json as well."""
    file = tmp_path / theirs
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"format": "layers-model"}')
    with suppress(OutputError):  # a folder with parts alone may be that of an interrupted run
        write_site(PageModel(tiny), tmp_path, ENGINE)
    assert file.read_text() == '{"format": "layers-model"}'


def test_bad_input_raises(tmp_path, tiny, not_a_model, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    with pytest.raises(OutputError, match="mine"):
        write_site(PageModel(tiny), tmp_path / "mine", ENGINE)
    with pytest.raises(OutputError, match=r"diary\.txt"):
        write_site(PageModel(tiny), tmp_path / "mine/diary.txt/site", ENGINE)
    with pytest.raises(FileError, match=r"no\.gguf"):
        write_site(PageModel(not_a_model), tmp_path / "site", ENGINE)
    with pytest.raises(RequestError, match="context"):
        write_site(PageModel(tiny, context=0), tmp_path / "site", ENGINE)
    monkeypatch.setattr("thirteen.web.site.FILE_BYTES_MAX", 1000)
    with pytest.raises(FileError, match="at most 1000"):
        write_site(PageModel(tiny), tmp_path / "site", ENGINE)
    assert not (tmp_path / "site").exists()


def test_a_run_that_was_killed_is_continued(tiny, tmp_path):
    """The part file of its description was something else's."""
    (tmp_path / ".model.json.0123456789abcdef.part").touch()
    assert write_site(PageModel(tiny), tmp_path, ENGINE).parts == 1


def test_npms_reason_is_told(tmp_path, monkeypatch):
    """It was "no error message"."""
    (npm := tmp_path / "npm").write_text(
        "#!/bin/sh\nprintf 'npm error code E404\\nnpm error 404 Not Found\\nnpm\\n' >&2; exit 1\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(FileError, match=r"npm pack failed: npm error 404 Not Found$"):
        wllama_files()


def test_only_the_pinned_archive_is_accepted(tmp_path, monkeypatch):
    other = tmp_path / "wllama.tgz"
    other.write_bytes(b"something else")
    with pytest.raises(FileError, match="sha512"):
        wllama_files(other)
    with pytest.raises(FileError, match="No such file"):
        wllama_files(tmp_path / "absent.tgz")
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionError, match="npm is not installed"):
        wllama_files()


def test_the_servers_page_has_security_headers_and_etags():
    with background_server(Starlette(routes=page_routes())) as address:
        for path, media_type in (
            ("/", "text/html"),
            ("/page.js", "text/javascript"),
            ("/katex/fonts/KaTeX_Main-Regular.woff2", "font/woff2"),
            ("/markdown-it/LICENSE", "text/plain"),
        ):
            response = httpx.get(address + path)
            assert response.headers["Content-Type"].startswith(media_type)
            assert response.headers["Content-Security-Policy"] == (
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                "font-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
            )
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            revalidated = httpx.get(address + path, headers={"If-None-Match": response.headers["ETag"]})
            assert (revalidated.status_code, revalidated.content) == (304, b"")


def test_local_server_sends_isolation_headers(site):
    with background_server(isolated_app(site)) as address:
        page = httpx.get(f"{address}/")
        assert page.status_code == 200
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert page.headers["cross-origin-embedder-policy"] == "require-corp"
        assert httpx.get(f"{address}/start.js").headers["content-type"].startswith("text/javascript")
        assert httpx.get(f"{address}/wllama/wllama.wasm").headers["content-type"] == "application/wasm"
        assert httpx.get(f"{address}/../../etc/passwd").status_code == 404


def test_local_server_refuses_names_of_other_sites(site):
    """DNS rebinding: for a foreign page whose domain leads to this machine, the files are of its origin."""
    with background_server(isolated_app(site)) as address:
        port = int(address.rpartition(":")[2])
        for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
            assert _get_raw(port, name).startswith(b"HTTP/1.1 400 "), name
        for name in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost"):
            assert _get_raw(port, name).startswith(b"HTTP/1.1 200 "), name


def _get_raw(port, host):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET /model.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(1000)


class StoppedError(Exception):
    """Raised by the tests to interrupt a run."""


def test_an_interrupted_run_leaves_the_old_site_whole_and_the_next_run_goes_on(tmp_path, tiny, smollm2):
    """The parts of the old model went first; a first run that was interrupted made its folder unusable."""

    def stop(done, total):
        raise StoppedError

    site = tmp_path / "site"
    with pytest.raises(StoppedError):
        write_site(PageModel(tiny), site, ENGINE, progress=stop)
    write_site(PageModel(tiny), site, ENGINE)
    old = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    with pytest.raises(StoppedError):
        write_site(PageModel(smollm2), site, ENGINE, progress=stop)
    assert {path: path.read_bytes() for path in old} == old
    write_site(PageModel(smollm2), site, ENGINE)
    model = json.loads((site / "model.json").read_text())
    names = {part["name"] for part in model["parts"]}
    assert {f"parts/{path.name}" for path in (site / "parts").iterdir()} == names
