"""Checks of a hub's answers before huggingface_hub makes paths of them.

The library joins ETags and commit hashes to paths of its cache as the server sends them. A malicious server
(`HF_ENDPOINT`) could so write anywhere.
"""

import json
import re
from functools import cache
from typing import Any

from ..errors import FileError, shorten

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of a git blob, or SHA-256 of a large file
_MAX_LISTING = 4 << 20  # bytes, which take 30 times as many in memory; of 20,000 files


@cache
def check_answers() -> None:
    """Make huggingface_hub check each answer of the hub, in this process from now on.

    An answer that is refused raises FileError inside the library's call.
    """
    from huggingface_hub import set_client_factory  # noqa: PLC0415 (half a second)
    from huggingface_hub.utils import _http  # noqa: PLC0415

    make_client = _http._GLOBAL_CLIENT_FACTORY  # what the user has set stays in use

    def checked_client() -> Any:
        client = make_client()
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "response": [_check, *hooks.get("response", [])]}
        return client

    set_client_factory(checked_client)


def _check(response: Any) -> None:
    """Check the headers that name files of the cache, and the listings of a repository.

    Raises:
        FileError: a hash is not hexadecimal, or a listing has another shape or more than 4 MB.
    """
    headers, request = response.headers, response.request
    _require(headers.get("X-Repo-Commit"), _COMMIT, "commit")
    if request.method == "HEAD":
        etag = headers.get("X-Linked-Etag") or headers.get("ETag")
        _require(etag and etag.removeprefix("W/").strip('"'), _HASH, "ETag")
    if request.url.path.startswith("/api/") and response.is_success:
        _check_listing(_read(response))


def _read(response: Any) -> bytes:
    """Read an answer, decompressed, within the bound."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > _MAX_LISTING:
            raise FileError(f"the hub sends a listing of more than {_MAX_LISTING >> 20} MB")
    response._content = bytes(body)  # as its read() keeps it, which has no bound
    return bytes(body)


def _check_listing(body: bytes) -> None:
    try:
        listing = json.loads(body)
        if isinstance(listing, dict):
            _require(listing.get("sha"), _COMMIT, "commit")
            entries = listing.get("siblings") or []
            names = [entry["rfilename"] for entry in entries]
        else:
            entries, names = listing, [entry["path"] for entry in listing]
        hashes = [entry.get(key) for entry in entries for key in ("oid", "blobId")]
        large = [entry.get("lfs") or {} for entry in entries]
        hashes += [lfs.get(key) for lfs in large for key in ("oid", "sha256")]
        sizes = [entry.get("size") for entry in [*entries, *large]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileError("the hub sends a listing of another shape than huggingface.co's") from error
    for name in names:
        if not isinstance(name, str):  # one that leads elsewhere is not downloaded
            raise FileError(f"the hub lists a file whose name is no text: {shorten(name)}")
    for value in hashes:
        _require(value, _HASH, "hash")
    if not all(size is None or (type(size) is int and size >= 0) for size in sizes):
        raise FileError("the hub lists a file whose size is not a number")


def _require(value: object, pattern: re.Pattern[str], kind: str) -> None:
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise FileError(f"the hub sends a {kind} that is not a hash: {shorten(value)}")
