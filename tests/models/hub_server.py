"""A fake Hugging Face hub on a real socket: the routes that huggingface_hub uses, with fault injection."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_ROUTES = {
    "info": re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?"),
    "tree": re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)"),
    "resolve": re.compile(r"/(datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)"),
}


def is_large(name: str) -> bool:
    """Whether the hub stores a file of this name in LFS."""
    return name.endswith((".safetensors", ".bin", ".pth", ".onnx"))


@dataclass
class Repository:
    """A repository and its faults.

    Attributes:
        commits: files (name to bytes) by commit, a hash of 40 hex digits.
        refs: commits by branch or tag.
        status: HTTP status of downloads; 401 or 403 if the repository is gated.
        error_code: value of X-Error-Code where `status` is not 200.
        corrupted: bytes sent in place of the published ones, by file name.
    """

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    status: int = 200
    error_code: str = "GatedRepo"
    corrupted: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """A running fake hub.

    Attributes:
        url: its address.
        repositories: repositories by id.
        requests: method, path and Range header of each request received.
    """

    url: str
    repositories: dict[str, Repository]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def downloaded(self) -> set[str]:
        """Names of the files requested with GET."""
        found = (_ROUTES["resolve"].fullmatch(path) for method, path, _ in self.requests if method == "GET")
        return {match["name"] for match in found if match}


class _HubServer(ThreadingHTTPServer):
    hub: Hub


@contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serve repositories on a free port of this machine."""
    server = _HubServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}", repositories)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, unquote(path), self.headers["Range"]))
        for route, pattern in _ROUTES.items():
            if match := pattern.fullmatch(path):
                return self._repository(route, **{k: unquote(v) for k, v in match.groupdict().items() if v})
        return self._error(404, "NotFound")

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _HubServer)
        return self.server.hub

    def _repository(self, route: str, id: str, revision: str = "main", name: str = "") -> None:
        repository = self.hub.repositories.get(id)
        if repository is None:
            return self._error(404, "RepoNotFound")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound")
        files = repository.commits[commit]
        if route != "resolve":
            return self._json({"info": _info, "tree": _tree}[route](id, commit, files))
        if repository.status != 200:
            return self._error(repository.status, repository.error_code)
        if name not in files:
            return self._error(404, "EntryNotFound", commit=commit)
        return self._file(repository, commit, name, files[name])

    def _file(self, repository: Repository, commit: str, name: str, published: bytes) -> None:
        data = repository.corrupted.get(name, published)
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {
            "Content-Length": str(len(data) - start),
            "Accept-Ranges": "bytes",
            "X-Repo-Commit": commit,
            "ETag": f'"{git_sha1(published)}"',
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if is_large(name):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(published).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(published))
        self.send_response(206 if start else 200)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:])

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str | None, message: str = "", commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.send_response(status)
        for header, value in headers.items():
            if value:
                self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def git_sha1(data: bytes) -> str:
    """Return the hash of a file as a git blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _info(id: str, commit: str, files: dict[str, bytes]) -> object:
    siblings = [
        {"rfilename": name, "blobId": git_sha1(data)} | _lfs(name, data, "sha256")
        for name, data in files.items()
    ]
    return {
        "_id": "0",
        "id": id,
        "modelId": id,
        "sha": commit,
        "private": False,
        "tags": [],
        "siblings": siblings,
    }


def _tree(_: str, __: str, files: dict[str, bytes]) -> object:
    return [
        {"type": "file", "path": name, "oid": git_sha1(data)} | _lfs(name, data, "oid")
        for name, data in files.items()
    ]


def _lfs(name: str, data: bytes, key: str) -> dict[str, object]:
    lfs = {key: hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return {"size": len(data)} | ({"lfs": lfs} if is_large(name) else {})
