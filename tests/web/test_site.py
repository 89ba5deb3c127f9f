"""Files of the static site, their local server and the headers of the page, without a browser."""

import json
from base64 import b64encode
from contextlib import nullcontext
from hashlib import sha256

import httpx
import pytest
from starlette.applications import Starlette
from thirteen.errors import FileError, OptionError, OutputError
from thirteen.web import site as site_module
from thirteen.web.site import APP, PART_BYTES, wllama_files, write_site
from thirteen.web.static_files import PAGE, page_routes, site_app

from ..background_server import background_server

ENGINE = {"index.min.js": b"export class Wllama {}", "wllama.wasm": b"\0asm", "LICENCE": b"MIT"}


@pytest.fixture
def site(tiny, tmp_path):
    write_site(tiny, tmp_path / "site", ENGINE, context=128)
    return tmp_path / "site"


def files_of(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_parts_join_to_the_model_and_are_named_by_their_hashes(tmp_path, tiny, site):
    """Those of an earlier model go."""
    large = tmp_path / "large.gguf"
    large.write_bytes(tiny.read_bytes() + bytes(PART_BYTES))
    result = write_site(large, site, ENGINE)
    files = files_of(site)
    model = json.loads(files["model.json"])
    parts = [files[part["name"]] for part in model["parts"]]
    assert b"".join(parts) == large.read_bytes() and len(parts) == 2
    assert {name for name in files if name.startswith("parts/")} == {part["name"] for part in model["parts"]}
    for content, part in zip(parts, model["parts"], strict=True):
        digest = sha256(content)
        assert part["name"] == f"parts/{digest.hexdigest()[:16]}.bin"
        assert part["integrity"] == f"sha256-{b64encode(digest.digest()).decode()}"
    assert (model["name"], model["file_bytes"]) == ("large", large.stat().st_size)
    assert (result["files"], result["nbytes"]) == (len(files), sum(map(len, files.values())))


def test_the_service_worker_changes_with_any_file_and_names_all_but_the_parts(site, tiny):
    code = (site / "sw.js").read_text()
    assert (site / "page/client.js").read_bytes() == (APP / "client.js").read_bytes()
    listed = json.loads(code.partition("const FILES = ")[2].partition(";\n")[0])
    assert {*listed} == {name for name in files_of(site) if name != "sw.js" and not name.startswith("parts/")}
    write_site(tiny, site, ENGINE | {"LICENCE": b"changed"}, context=128)
    assert (site / "sw.js").read_text().splitlines()[0] != code.splitlines()[0]


@pytest.mark.parametrize("theirs", ["model.json", "parts/mine.bin", "diary.txt"])
def test_what_another_program_has_written_stays(tmp_path, tiny, theirs):
    """TensorFlow.js has a model.json as well; a folder of parts may be that of an interrupted run."""
    file = tmp_path / "site" / theirs
    file.parent.mkdir(parents=True)
    file.write_text('{"format": "layers-model"}')
    with nullcontext() if "/" in theirs else pytest.raises(OutputError, match="files of something else"):
        write_site(tiny, tmp_path / "site", ENGINE)
    assert file.read_text() == '{"format": "layers-model"}'


def test_bad_input_raises(tmp_path, tiny, monkeypatch):
    (tmp_path / "no.gguf").write_text("hello")
    with pytest.raises(OutputError, match=r"no\.gguf"):
        write_site(tiny, tmp_path / "no.gguf/site", ENGINE)
    with pytest.raises(FileError, match=r"no\.gguf"):
        write_site(tmp_path / "no.gguf", tmp_path / "site", ENGINE)
    monkeypatch.setattr(site_module, "FILE_BYTES_MAX", 1000)
    with pytest.raises(FileError, match="at most 1000"):
        write_site(tiny, tmp_path / "site", ENGINE)
    assert not (tmp_path / "site").exists()


def test_only_the_pinned_archive_is_accepted_and_npms_reason_is_told(tmp_path, monkeypatch):
    (tmp_path / "wllama.tgz").write_bytes(b"something else")
    with pytest.raises(FileError, match="sha512"):
        wllama_files(tmp_path / "wllama.tgz")
    with pytest.raises(FileError, match="No such file"):
        wllama_files(tmp_path / "absent.tgz")
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionError, match="npm is not installed"):
        wllama_files()
    (npm := tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error 404' >&2; exit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(FileError, match=r"npm pack failed: npm error 404$"):
        wllama_files()


def test_the_page_has_security_headers_and_etags():
    with background_server(Starlette(routes=page_routes())) as address:
        for path, media_type in (("/", "text/html"), ("/page/page.js", "text/javascript")):
            response = httpx.get(address + path)
            assert response.headers["Content-Type"].startswith(media_type)
            revalidated = httpx.get(address + path, headers={"If-None-Match": response.headers["ETag"]})
            assert (revalidated.status_code, revalidated.content) == (304, b"")
        page = httpx.get(address)
        assert "require-trusted-types-for 'script'" in page.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'" in page.text


def test_the_local_server_isolates_the_site_and_answers_to_this_machines_names(site):
    """DNS rebinding: for a foreign page whose domain leads to this machine, the files are of its origin."""
    with background_server(site_app(site)) as address:
        page = httpx.get(f"{address}/")
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert page.headers["cross-origin-embedder-policy"] == "require-corp"
        assert httpx.get(f"{address}/wllama/wllama.wasm").headers["content-type"] == "application/wasm"
        port = address.rpartition(":")[2]
        names = {"evil.example": 400, f"evil.example:{port}": 400, "127.0.0.1.evil.example": 400, "": 400}
        names |= {f"127.0.0.1:{port}": 200, f"localhost:{port}": 200, "localhost": 200}
        for name, status in names.items():
            assert httpx.get(f"{address}/model.json", headers={"Host": name}).status_code == status, name


@pytest.mark.parametrize("folder", ["katex", "markdown-it"])
def test_vendored_files_have_the_recorded_hashes(folder):
    """KaTeX and markdown-it are those of the npm packages."""
    found = files_of(PAGE / folder)
    lines = found.pop("SHA256SUMS").decode().splitlines()
    recorded = dict(reversed(line.split("  ")) for line in lines if not line.startswith("#"))
    assert {path: sha256(content).hexdigest() for path, content in found.items()} == recorded
