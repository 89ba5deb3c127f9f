"""Answers of a hub: a listing, and the headers of a file."""

import re
from types import SimpleNamespace

from thirteen.models import hub_answers

from ..target import Target, accepts

_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def check(data: bytes) -> bool:
    """A listing; its first line is also taken for the hashes in the headers."""
    line = data.decode("utf-8", "replace").partition("\n")[0]
    headers = {"X-Repo-Commit": line, "ETag": f'W/"{line}"'}
    request = SimpleNamespace(method="HEAD", url=SimpleNamespace(path="/a/b/resolve/main/config.json"))
    passed = accepts(hub_answers._check, SimpleNamespace(headers=headers, request=request))
    assert not passed or _HASH.fullmatch(line), "it names a file of the cache"
    return accepts(hub_answers._check_listing, data) or passed


TARGET = Target(
    check, words=("sha", "siblings", "rfilename", "path", "oid", "blobId", "lfs", "size", "0" * 40)
)
