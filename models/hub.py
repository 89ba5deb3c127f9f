"""Downloads from the Hugging Face hub, into its own cache, which other tools share.

Files of a commit never change. The SHA-256 of a large one, by which its blob in the cache is named, is
checked once, and that is remembered.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection
from threading import Thread
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import FileError, OfflineError, ThirteenError, one_line
from ..files.received_files import PROMPT_FILE, check_links, file_sha256
from ..files.trusted_files import file_stamp, is_recorded, record
from .catalogue import catalogue

RepositoryKind = Literal["base", "adapter"]

_PATTERNS: Mapping[RepositoryKind, list[str]] = {
    "base": [
        *("config.json", "generation_config.json", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
        *("*.safetensors", "*.safetensors.index.json", "LICENSE*", "NOTICE*", "USE_POLICY*"),
    ],
    "adapter": ["adapter_config.json", "adapter_model.safetensors", PROMPT_FILE, "README.md"],
}
_FIRST: Mapping[RepositoryKind, str] = {"base": "config.json", "adapter": "adapter_config.json"}
# The * of a pattern also matches separators. Excluding them limits downloads to the repository root.
_IGNORED = ["*/*", "*\\*", "*:*", "consolidated*"]
_CONNECT_S = 2.0  # for each address of a host

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*")  # ".." would escape from the refs folder of the cache
_SHA256 = re.compile(r"[0-9a-f]{64}")

_LICENCE = "accept its licence at https://huggingface.co/{id}, then `hf auth login` or set HF_TOKEN=…"
# Class of the library's error or status of the hub's answer -> message; the first match is used.
_ADVICE: Mapping[str | int, str] = {
    "GatedRepoError": f"{{id}} is gated: {_LICENCE}",
    "RevisionNotFoundError": "{id} has no revision {revision!r} on the hub",
    "RepositoryNotFoundError": "no repository {id} (revision {revision}) on the hub, and no such folder "
    "here; if it is private, `hf auth login` or set HF_TOKEN=…",
    "OfflineModeIsEnabled": "{id} (revision {revision}) is not complete in the cache, "
    "and HF_HUB_OFFLINE is set",
    401: "the hub answers 401 for {id} (revision {revision}): the repository does not exist or is private, "
    "or the token is invalid; `hf auth login` or set HF_TOKEN=…",
    403: f"the hub refuses {{id}} to this token, which may lack access to gated repositories: {_LICENCE}",
    429: "too many requests for {id}: wait a few minutes",
}
_DEFAULT_ADVICE = (
    "{id} (revision {revision}) is not complete in the cache and could not be downloaded: {reason}"
)


def download(hub_id: str, revision: str, kind: RepositoryKind) -> Path:
    """Download the missing files of a repository and verify them; offline, the cached copy is used.

    Returns:
        The snapshot folder, named after its commit.

    Raises:
        OfflineError: the hub cannot be reached, and the cached copy is not complete.
        FileError: the hub refuses access, lacks files, or sends damaged ones.
    """
    if not _HUB_ID.fullmatch(hub_id) or not _REVISION.fullmatch(revision):
        raise FileError(f"not a hub id and revision: {hub_id!r}, {revision!r}")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (half a second)

    patterns = _PATTERNS[kind]
    with _hub_call(hub_id, revision) as offline:
        folder = Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_files_only=offline,
                allow_patterns=patterns,
                ignore_patterns=_IGNORED,
            )
        )
        if not (folder / _FIRST[kind]).exists():
            raise FileError(f"{hub_id} at {folder.name}: no {_FIRST[kind]}: it is no {kind}")
        check_links(folder)
        known = {(base.hub_id, base.revision): base.sha256 for base in catalogue().bases.values()}
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            weights = path.name == "model.safetensors"
            _verify(path, hub_id, known.get((hub_id, folder.name)) if weights else None)
    return folder


def download_file(hub_id: str, revision: str, name: str, sha256: str) -> Path:
    """Download a file of a data set at a commit unless it is cached, and verify its hash.

    Raises:
        OfflineError: the hub cannot be reached, and the file is not cached.
        FileError: the hub refuses access, lacks the file, or sends a damaged one.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    with _hub_call(hub_id, revision) as offline:
        path = Path(
            hf_hub_download(hub_id, name, repo_type="dataset", revision=revision, local_files_only=offline)
        )
        check_links(path.parent)
        _verify(path, hub_id, sha256)
    return path


def cached_bases() -> list[str]:
    """The hub ids of the bases whose weights are in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415

    weights = Path(HF_HUB_CACHE).glob("models--*/snapshots/*/model.safetensors*")
    return sorted({path.parts[-4].removeprefix("models--").replace("--", "/", 1) for path in weights})


def check_host(url: str) -> None:
    """Raise OfflineError, which names the host, unless it or the proxy for it soon takes a connection.

    The hub's library would try again for half a minute.
    """
    connected: Future[None] = Future()
    host, through = url, ""
    try:
        parts, proxies = urlsplit(url), getproxies()
        host = parts.hostname or url
        if proxy := None if proxy_bypass(host) else proxies.get(parts.scheme) or proxies.get("all"):
            parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            through = f" through the proxy {parts.hostname}"
        port = parts.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)

        def connect() -> None:  # in a thread, as the resolver of names has no bound on its time
            try:
                create_connection((parts.hostname, port), _CONNECT_S).close()
                connected.set_result(None)
            except (OSError, ValueError) as error:
                connected.set_exception(error)

        Thread(target=connect, daemon=True).start()
        connected.result(2 * _CONNECT_S)
    except OSError as error:
        reason = error.strerror or str(error) or f"no answer in {2 * _CONNECT_S:.0f} s"
        raise OfflineError(f"{host} cannot be reached{through} ({reason})") from None
    except ValueError as error:
        raise OfflineError(f"{url} or the proxy for it is no valid address ({error})") from None


@contextmanager
def _hub_call(hub_id: str, revision: str) -> Iterator[bool]:
    """Raise whatever the hub's library raises in the block as one FileError; its log of retries is silent.

    The value is whether the hub cannot be reached, so that only the cache is read.
    """
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE  # noqa: PLC0415 (half a second)

    problem = None
    try:
        if not HF_HUB_OFFLINE:
            check_host(ENDPOINT)
    except OfflineError as error:
        problem = error
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield problem is not None
    except ThirteenError:
        raise
    except Exception as error:
        if problem:
            missing = f"{hub_id} (revision {revision}) is not complete in the cache"
            raise OfflineError(f"{problem}, and {missing}") from error
        raise FileError(_explain(error, hub_id, revision)) from error
    finally:
        logger.setLevel(level)


def _verify(path: Path, hub_id: str, expected: str | None) -> None:
    """Compare a file with its published hash, by default the name of its blob, unless it was before."""
    blob = path.resolve()
    expected = expected or (blob.name if _SHA256.fullmatch(blob.name) else None)
    if expected is None or is_recorded(stamp := file_stamp(path, expected)):
        return
    if (found := file_sha256(path)) != expected:
        blob.unlink()  # inside the cache: its links were checked
        path.unlink(missing_ok=True)
        raise FileError(
            f"{hub_id}: {path.name} is damaged and was deleted: SHA-256 is {found}, expected {expected}"
        )
    record(stamp)


def _explain(error: BaseException, hub_id: str, revision: str) -> str:
    """One line on what failed and what the user can do about it."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    keys: set[str | int | None] = {kind.__name__ for link in chain for kind in type(link).__mro__}
    keys |= {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    advice = next((text for key, text in _ADVICE.items() if key in keys), _DEFAULT_ADVICE)
    message = advice.format(id=hub_id, revision=revision, reason=one_line(chain[-1]))
    copies = (base.public_copy for base in catalogue().bases.values() if base.hub_id == hub_id)
    copy = next(copies, None) if _LICENCE.format(id=hub_id) in message else None
    return message + (f"; or use its public copy {copy}, under the same licence" if copy else "")
