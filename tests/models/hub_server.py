"""A fake Hugging Face hub on a real socket: the routes that huggingface_hub uses, with fault injection."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..background_server import background_server

_INFO = "/api/models/{owner}/{name}"
_ROUTES = (_INFO, _INFO + "/revision/{revision:path}", _INFO + "/tree/{revision:path}")
_FILE = "/{owner}/{name}/resolve/{revision}/{file:path}"


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
    """A fake hub: its repositories by id, and what was asked of it, as the method and the file or None."""

    repositories: dict[str, Repository]
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def downloaded(self) -> set[str]:
        """Names of the files requested with GET."""
        return {name for method, name in self.requests if method == "GET" and name}

    async def respond(self, request: Request) -> Response:
        """Answer as the hub does."""
        place, file = request.path_params, request.path_params.get("file")
        self.requests.append((request.method, file))
        repository = self.repositories.get(f"{place['owner']}/{place['name']}")
        if repository is None:
            return _error(404, "RepoNotFound")
        revision = place.get("revision", "main")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return _error(404, "RevisionNotFound")
        files = repository.commits[commit]
        if file is None:
            listed = [_entry(name, data) for name, data in files.items()]
            is_tree = "/tree/" in request.url.path
            return JSONResponse(listed if is_tree else {"id": "a/b", "sha": commit, "siblings": listed})
        if repository.status != 200:
            return _error(repository.status, repository.error_code)
        if file not in files:
            return _error(404, "EntryNotFound", commit)
        return _download(file, files[file], repository.corrupted.get(file, files[file]), commit)


@contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serve repositories on a free port of this machine."""
    hub = Hub(repositories)
    routes = [Route(path, hub.respond, methods=["GET"]) for path in (*_ROUTES, "/datasets" + _FILE, _FILE)]
    with background_server(Starlette(routes=routes)) as hub.url:
        yield hub


def hub_environment(url: str, home: Path) -> dict[str, str]:
    """The environment of a process that knows this hub alone, with its cache in a folder."""
    hidden = ("HF_", "HUGGING", "TRANSFORMERS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


def _download(name: str, published: bytes, sent: bytes, commit: str) -> Response:
    headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_sha1(published)}"'}
    if _is_large(name):
        digest = hashlib.sha256(published).hexdigest()
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(published))}
    return Response(sent, headers=headers)


def _error(status: int, code: str, commit: str = "") -> Response:
    headers = {"X-Error-Code": code, "X-Repo-Commit": commit}
    return Response(status_code=status, headers={name: value for name, value in headers.items() if value})


def _entry(name: str, data: bytes) -> dict[str, object]:
    """A file as both kinds of listings have it."""
    found = {"rfilename": name, "path": name, "type": "file", "size": len(data)}
    found |= {"oid": _git_sha1(data), "blobId": _git_sha1(data)}
    if _is_large(name):
        digest = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 134}
    return found


def _is_large(name: str) -> bool:
    """Whether the hub stores a file of this name in LFS."""
    return name.endswith(".safetensors")


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
