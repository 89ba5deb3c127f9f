"""Resolution of a base or an adapter as a user names it to a local path, by download if needed."""

import logging
import os
from pathlib import Path

from ..errors import FileError, OfflineError
from .catalogue import adapter_folder, catalogue
from .hub import RepositoryKind, cached_bases, download

_log = logging.getLogger(__name__)
_FILES = (".gguf", ".safetensors")  # no repository name ends in these


def fetch(source: str, *, kind: RepositoryKind) -> Path:
    """Resolve a base or an adapter to a local path, and download it if needed.

    Args:
        source: file or folder, catalogue name, `embedded`, or hub id `owner/name`. A name or a hub id may end
            in `@revision`, a branch, tag or commit. A path that exists, or a string that looks like a path,
            never goes to the hub.
        kind: whether the source names a base or an adapter; decides which files are downloaded.

    Returns:
        The file or folder. Offline, the embedded model stands for the base that it was made of.

    Raises:
        OfflineError: the host of a download cannot be reached; the message has what works without it.
        FileError: the path or name does not exist; or the hub refuses access, or sends damaged files.
    """
    if (path := local_path(source)) is not None:
        return path
    from .embedded import embedded, find_embedded  # noqa: PLC0415 - with the client of its download

    name, _, revision = source.partition("@")
    try:
        if "/" in name:
            return download(name, revision or "main", kind)
        if kind == "base" and name != "embedded":
            entry = catalogue().base(name)
            return download(entry.hub_id, revision or entry.revision, kind)
        if revision:
            raise FileError(f"{name} is local: the revision {revision!r} applies only to the hub")
        return embedded() if kind == "base" else adapter_folder(name)
    except OfflineError as error:
        found = find_embedded() if kind == "base" else None
        if found and source == catalogue().embedded.base:
            _log.warning("%s; its quantized copy, `embedded`, stands for it", error)
            return found
        if kind == "adapter":
            names = [*catalogue().adapters]
        else:
            names = [*(["embedded"] if found else []), *cached_bases(), "converted ones of `thirteen models`"]
        raise OfflineError(f"{error}; these work offline: {', '.join(names)}, and local files") from None


def local_path(source: str) -> Path | None:
    """The path that `source` denotes, or None if it is a name or a hub id.

    Raises:
        FileError: it looks like a path, but there is no such file or folder.
    """
    # Unlike Path's methods, these accept an unknown ~user, and a name that is too long for the file system.
    path = Path(os.path.expanduser(source))  # noqa: PTH111
    if source and os.path.exists(path):  # noqa: PTH110
        return path
    name = source.partition("@")[0]
    is_deep = name.count("/") > 1 or "\\" in name
    if not name or name.startswith((".", "/", "~")) or name.endswith(_FILES) or is_deep:
        raise FileError(f"{source!r}: no such file or folder")
    return None
