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
    """Check what becomes a path; of another mistake the library's error is told."""
    try:
        listing = json.loads(body)
        commit = None if isinstance(listing, list) else listing.get("sha")
        entries = listing if isinstance(listing, list) else listing.get("siblings") or []
        parts = [part for entry in entries for part in (entry, entry.get("lfs") or {})]
        hashes = [part.get(key) for part in parts for key in ("oid", "blobId", "sha256")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FileError("the hub sends a listing of another shape than huggingface.co's") from error
    _require(commit, _COMMIT, "commit")
    for value in hashes:
        _require(value, _HASH, "hash")


def _require(value: object, pattern: re.Pattern[str], kind: str) -> None:
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise FileError(f"the hub sends a {kind} that is not a hash: {shorten(value)}")
