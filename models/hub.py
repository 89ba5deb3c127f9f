"""Downloads from the Hugging Face hub: only the files needed, with the hashes of large files checked.

Files go to the hub's own cache, which other tools share. The SHA-256 of a large file is compared once with
the published one; a small record next to the snapshot then marks the files as verified.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from ..errors import FileError, OfflineError, OutputError, ThirteenError, one_line
from ..files.atomic_write import write_file
from ..files.cache_folder import sharing_problem
from ..files.hashing import file_sha256
from ..files.json_file import read_json
from ..files.received_files import PROMPT_FILE, check_links
from .catalogue import catalogue
from .host import check_host
from .hub_answers import check_answers

RepositoryKind = Literal["base", "adapter"]

_PATTERNS: Mapping[RepositoryKind, list[str]] = {
    "base": [
        *("config.json", "generation_config.json", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
        *("*.safetensors", "*.safetensors.index.json", "LICENSE*", "NOTICE*", "USE_POLICY*"),
    ],
    "adapter": ["adapter_config.json", "adapter_model.safetensors", PROMPT_FILE, "README.md"],
}
# The * of a pattern also matches separators. Excluding them limits downloads to the repository root and keeps
# files inside the cache.
_IGNORED = ["*/*", "*\\*", "*:*", "consolidated*"]

_log = logging.getLogger(__name__)

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

    Args:
        hub_id: `owner/name`.
        revision: branch, tag or commit.
        kind: decides which files are needed.

    Returns:
        The snapshot folder, named after its commit.

    Raises:
        OfflineError: the hub cannot be reached, and the cached copy is not complete.
        FileError: the hub refuses access, lacks files, or sends damaged ones.
    """
    if not _HUB_ID.fullmatch(hub_id) or not _REVISION.fullmatch(revision):
        raise FileError(f"not a hub id and revision: {hub_id!r}, {revision!r}")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (half a second)

    with _hub_call(hub_id, revision) as offline:
        wanted: dict[str, Any] = {"allow_patterns": _PATTERNS[kind], "ignore_patterns": _IGNORED}
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=offline, **wanted))
        check_links(folder)
        stamps = _file_stamps(folder, kind)
        _verify(folder, hub_id, kind, stamps, offline=offline)
        _warn_of_changes(folder, hub_id, revision, kind, _blob_hashes(folder, stamps))
    return folder


def cached_bases() -> list[str]:
    """The hub ids of the bases whose weights are in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415

    weights = Path(HF_HUB_CACHE).glob("models--*/snapshots/*/model.safetensors*")
    return sorted({path.parts[-4].removeprefix("models--").replace("--", "/", 1) for path in weights})


def download_file(hub_id: str, revision: str, name: str, sha256: str) -> Path:
    """Download a file of a data set unless it is cached, and verify its hash.

    Args:
        hub_id: `owner/name`.
        revision: commit.
        name: path of the file in the repository.
        sha256: expected hash in hexadecimal.

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
        _check_hash(path, hub_id, sha256)
    return path


@contextmanager
def _hub_call(hub_id: str, revision: str) -> Iterator[bool]:
    """Raise what the hub's library raises in the block as one FileError; its log of retries is silent.

    A malformed answer makes it raise anything. The value is whether the hub cannot be reached, so that only
    the cache is read.
    """
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE  # noqa: PLC0415 (half a second)

    check_answers()
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


def _warn_of_changes(
    folder: Path, hub_id: str, revision: str, kind: RepositoryKind, hashes: Mapping[str, str | None]
) -> None:
    """Warn if a branch or tag has other large files than at its first download, which is remembered."""
    record = folder.parents[1] / "thirteen" / f"first.{kind}.json"
    first = _read_record(record) or {}
    now = {name: digest for name, digest in hashes.items() if digest}
    if revision not in first:
        _write_record(record, first | {revision: {"commit": folder.name, "files": now}})
        return
    before = first[revision]
    if isinstance(before, dict) and before.get("files") != now:
        _log.warning(
            "%s@%s has changed since its first download: commit %s then, %s now; to keep the first, name it: "
            "%s@%s",
            *(hub_id, revision, before.get("commit"), folder.name, hub_id, before.get("commit")),
        )


def _verify(
    folder: Path, hub_id: str, kind: RepositoryKind, stamps: Mapping[str, list[int]], *, offline: bool
) -> None:
    """Verify that a snapshot is complete and undamaged, unless it was verified before and has not changed."""
    record = folder.parents[1] / "thirteen" / f"{folder.name}.{kind}.json"
    if sharing_problem(record.parent) is None and _read_record(record) == stamps:
        return
    published = None if offline else _published_hashes(folder.name, hub_id, kind)
    hashes = _blob_hashes(folder, stamps) if published is None else published
    known = {(base.hub_id, base.revision): base.sha256 for base in catalogue().bases.values()}
    if digest := known.get((hub_id, folder.name)):
        hashes = {**hashes, "model.safetensors": digest}
    missing = (hashes.keys() | _required_files(folder, kind)) - stamps.keys()
    if missing:
        where = "the cached copy, and the hub cannot be reached" if published is None else "the hub"
        raise FileError(f"{hub_id} at {folder.name}: no {', '.join(sorted(missing))} in {where}")
    for name, expected in hashes.items():
        _check_hash(folder / name, hub_id, expected)
    if published is not None:
        _write_record(record, stamps)


def _check_hash(path: Path, hub_id: str, expected: str | None) -> None:
    if expected is not None and (found := file_sha256(path)) != expected:
        path.resolve().unlink()  # inside the cache: its links were checked
        path.unlink(missing_ok=True)
        raise FileError(
            f"{hub_id}: {path.name} is damaged and was deleted: SHA-256 is {found}, expected {expected}"
        )


def _published_hashes(commit: str, hub_id: str, kind: RepositoryKind) -> dict[str, str | None] | None:
    """The files of a commit and the SHA-256 of the large ones; None if the hub does not answer."""
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # noqa: PLC0415

    network: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)  # of any HTTP library
    try:
        files = HfApi().model_info(hub_id, revision=commit, files_metadata=True).siblings or []
    except network:
        return None
    wanted = filter_repo_objects(
        files, allow_patterns=_PATTERNS[kind], ignore_patterns=_IGNORED, key=lambda file: file.rfilename
    )
    return {file.rfilename: file.lfs.sha256 if file.lfs else None for file in wanted}


def _blob_hashes(folder: Path, names: Mapping[str, object]) -> dict[str, str | None]:
    """The hashes from the cache's symlinks: the blob of a large file is named after its published hash."""
    targets = {name: path.readlink().name if (path := folder / name).is_symlink() else "" for name in names}
    return {name: target if _SHA256.fullmatch(target) else None for name, target in targets.items()}


def _required_files(folder: Path, kind: RepositoryKind) -> set[str]:
    """The files that must exist; for a base, including the shards of its index or the single weight file."""
    if kind == "adapter":
        return {"adapter_config.json", "adapter_model.safetensors"}
    required = {"config.json", "tokenizer.json"}
    if not (index := folder / "model.safetensors.index.json").exists():
        return required | {"model.safetensors"}
    shards = read_json(index).get("weight_map")
    return required | (set(map(str, shards.values())) if isinstance(shards, dict) else set())


def _file_stamps(folder: Path, kind: RepositoryKind) -> dict[str, list[int]]:
    """Size and modification time of each file present; they change when a file is replaced."""
    files = (path for pattern in _PATTERNS[kind] for path in folder.glob(pattern) if path.is_file())
    return {path.name: [(stat := path.stat()).st_size, stat.st_mtime_ns] for path in files}


def _read_record(record: Path) -> dict[str, Any] | None:
    with suppress(FileError):
        return read_json(record)
    return None


def _write_record(record: Path, content: object) -> None:
    with suppress(OSError, OutputError):  # in a read-only cache, files are hashed on each use
        record.parent.mkdir(mode=0o700, exist_ok=True)
        write_file(record, json.dumps(content).encode())


def _explain(error: BaseException, hub_id: str, revision: str) -> str:
    """One line on what failed and what the user can do about it."""
    chain = list(_causes(error))
    keys: set[str | int | None] = {kind.__name__ for link in chain for kind in type(link).__mro__}
    keys |= {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    advice = next((text for key, text in _ADVICE.items() if key in keys), _DEFAULT_ADVICE)
    message = advice.format(id=hub_id, revision=revision, reason=one_line(chain[-1]))
    copies = (base.public_copy for base in catalogue().bases.values() if base.hub_id == hub_id)
    copy = next(copies, None) if _LICENCE.format(id=hub_id) in message else None
    return message + (f"; or use its public copy {copy}, under the same licence" if copy else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
