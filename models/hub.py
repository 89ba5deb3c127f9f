"""One repository of the hub as a folder on this machine: only the files needed, each large one checked.

Files land in the hub's own cache, shared with other tools. A large file's SHA-256 is compared once with the
one that the hub publishes; a small record beside the snapshot then says which files were found good.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from ..errors import DownloadError, OutputError
from ..files.atomic_write import atomic_write
from ..files.hashing import file_sha256
from .catalogue import catalogue

What = Literal["base", "adapter"]

_WANTED: Mapping[What, list[str]] = {
    "base": [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "*.safetensors",
        "*.safetensors.index.json",
    ],
    "adapter": ["adapter_config.json", "adapter_model.safetensors", "README.md"],
}
# A pattern's * also matches separators; ruling those out keeps to the repository's root, and to the cache.
_UNWANTED = ["*/*", "*\\*", "*:*", "consolidated*"]
_NEEDED: Mapping[What, set[str]] = {
    "base": {"config.json", "tokenizer.json"},
    "adapter": {"adapter_config.json", "adapter_model.safetensors"},
}

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*")  # two dots would climb out of the cache's folder of refs
_SHA256 = re.compile(r"[0-9a-f]{64}")

_LICENCE = "accept its licence at https://huggingface.co/{id}, then `hf auth login` or set HF_TOKEN=…"
# The class of the library's error, to what the user can do; the first that fits.
_ADVICE = {
    "GatedRepoError": f"{{id}} is gated: {_LICENCE}",
    "RevisionNotFoundError": "{id} has no revision {revision!r} on the hub",
    "RepositoryNotFoundError": "no repository {id} (revision {revision}) on the hub, and no such folder "
    "here; if it is private, `hf auth login` or set HF_TOKEN=…",
    "OfflineModeIsEnabled": "{id} (revision {revision}) is not complete in the cache, "
    "and HF_HUB_OFFLINE is set",
}
_STATUS_ADVICE = {
    401: "the hub answers 401 for {id} (revision {revision}): there is no such repository, it is private, "
    "or the token is not valid; `hf auth login` or set HF_TOKEN=…",
    403: f"the hub refuses {{id}} to this token, which may lack access to gated repositories: {_LICENCE}",
    429: "too many requests for {id}: the hub asks to wait a few minutes",
}
_OTHERWISE = "{id} (revision {revision}) is not complete in the cache and could not be downloaded: {reason}"


def download(hub_id: str, revision: str, what: What) -> Path:
    """Download what is missing of a repository, and check it; out of the hub's reach, its cached copy serves.

    Args:
        hub_id: `owner/name`.
        revision: A branch, tag or commit.
        what: Which files are needed.

    Returns:
        The snapshot's folder, named after its commit.

    Raises:
        DownloadError: The hub cannot be reached, refuses, lacks files, or sends damaged ones.
    """
    if not _HUB_ID.fullmatch(hub_id) or not _REVISION.fullmatch(revision):
        raise DownloadError(f"not a hub id and revision: {hub_id!r}, {revision!r}")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (half a second)

    wanted = _WANTED[what]
    try:
        with _quiet():
            folder = Path(
                snapshot_download(hub_id, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED)
            )
        _check(folder, hub_id, what)
    except _hub_errors() as error:
        raise DownloadError(_explain(error, hub_id, revision)) from error
    return folder


def download_file(hub_id: str, revision: str, name: str, sha256: str | None = None) -> Path:
    """Download a file of a data set, unless it is in the cache, and check it.

    Args:
        hub_id: `owner/name`.
        revision: A commit.
        name: The file's path in the repository.
        sha256: Of the file, in hexadecimal, if it is known.

    Raises:
        DownloadError: The hub cannot be reached, refuses, lacks the file, or sends a damaged one.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    try:
        with _quiet():
            path = Path(hf_hub_download(hub_id, name, repo_type="dataset", revision=revision))
        _check_hash(path, hub_id, sha256)
    except _hub_errors() as error:
        raise DownloadError(_explain(error, hub_id, revision)) from error
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library says of every retry to itself: how the download ended is told once, by us."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check(folder: Path, hub_id: str, what: What) -> None:
    """Check that a snapshot is whole, unless this was done before and nothing has changed since."""
    record = folder.parents[1] / "thirteen" / f"{folder.name}.{what}.json"
    stamps = _stamps(folder, what)
    if _read(record) == stamps:
        return
    published = _published(folder.name, hub_id, what)
    hashes = _blob_names(folder, stamps) if published is None else published
    missing = (hashes.keys() | _needed(folder, what)) - stamps.keys()
    if missing:
        where = "the cached copy, and the hub cannot be reached" if published is None else "the hub"
        raise DownloadError(f"{hub_id} at {folder.name}: no {', '.join(sorted(missing))} in {where}")
    for name, expected in hashes.items():
        _check_hash(folder / name, hub_id, expected)
    if published is not None:
        _write(record, stamps)


def _check_hash(path: Path, hub_id: str, expected: str | None) -> None:
    if expected is not None and (found := file_sha256(path)) != expected:
        _delete(path)
        raise DownloadError(
            f"{hub_id}: {path.name} is damaged and was deleted: SHA-256 is {found}, the hub says {expected}"
        )


def _published(commit: str, hub_id: str, what: What) -> dict[str, str | None] | None:
    """Ask the hub for a commit's files, and the SHA-256 of the large ones; None if it does not answer."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    try:
        files = HfApi().model_info(hub_id, revision=commit, files_metadata=True).siblings or []
    except _hub_errors():
        return None
    wanted = (file for file in files if _matches(file.rfilename, what))
    return {file.rfilename: file.lfs.sha256 if file.lfs else None for file in wanted}


def _matches(name: str, what: What) -> bool:
    def is_one_of(patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return is_one_of(_WANTED[what]) and not is_one_of(_UNWANTED)


def _blob_names(folder: Path, names: Mapping[str, object]) -> dict[str, str | None]:
    """Take the hashes from the cache's links: it calls a large file's blob by the hash the hub published."""
    targets = {name: path.readlink().name if (path := folder / name).is_symlink() else "" for name in names}
    return {name: target if _SHA256.fullmatch(target) else None for name, target in targets.items()}


def _needed(folder: Path, what: What) -> set[str]:
    """Name the files to insist on; for a base with the weights of its index, or the single weight file."""
    if what == "adapter":
        return _NEEDED[what]
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return _NEEDED[what] | set(map(str, index["weight_map"].values()))
    except FileNotFoundError:
        return _NEEDED[what] | {"model.safetensors"}
    except (ValueError, LookupError, TypeError, AttributeError):
        return _NEEDED[what]  # the checkpoint's reader says what is wrong with the index


def _stamps(folder: Path, what: What) -> dict[str, list[int]]:
    """Size and time of change of each file present, so as to notice another one in its place."""
    files = (path for pattern in _WANTED[what] for path in folder.glob(pattern) if path.is_file())
    return {path.name: [(stat := path.stat()).st_size, stat.st_mtime_ns] for path in files}


def _delete(path: Path) -> None:
    """Delete a file of the cache and what it links to, as far as that is in the cache."""
    cache = path.parents[3].resolve()  # cache / models--owner--name / snapshots / commit / file
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    if path.resolve().is_relative_to(cache):
        path.unlink(missing_ok=True)


def _read(record: Path) -> object:
    try:
        return json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None


def _write(record: Path, stamps: dict[str, list[int]]) -> None:
    with suppress(OSError, OutputError):  # in a read-only cache, files are hashed at each use
        record.parent.mkdir(exist_ok=True)
        with atomic_write(record) as file:
            file.write(json.dumps(stamps).encode())


def _hub_errors() -> tuple[type[BaseException], ...]:
    """Name the errors that a download can end in, whichever HTTP library is underneath.

    The network's errors are OSErrors or share a base with the hub's own; ValueError is for what the library
    refuses (a file name that climbs out of the cache), RuntimeError is how its Xet client fails.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    return (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def _explain(error: BaseException, hub_id: str, revision: str) -> str:
    chain = list(_causes(error))
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    statuses = {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    advice = [text for kind, text in _ADVICE.items() if kind in kinds]
    advice += [text for status, text in _STATUS_ADVICE.items() if status in statuses]
    reason = next(filter(str.strip, str(chain[-1]).splitlines()), type(chain[-1]).__name__).strip()
    said = [*advice, _OTHERWISE][0].format(id=hub_id, revision=revision, reason=reason)
    copies = (base.public_copy for base in catalogue().bases.values() if base.hub_id == hub_id)
    copy = next(copies, None) if _LICENCE.format(id=hub_id) in said else None
    return said + (f"; or give its public copy {copy}, under the same licence" if copy else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
