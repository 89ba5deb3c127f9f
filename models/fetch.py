"""Resolution of a base or an adapter as a user names it to a local path, by download if needed."""

import os
from pathlib import Path

from ..errors import FileError
from .catalogue import adapter_folder, catalogue
from .hub import RepositoryKind, download

_FILES = (".gguf", ".safetensors")  # no repository name ends in these


def fetch(source: str, *, kind: RepositoryKind) -> Path:
    """Resolve a base or an adapter to a local path, and download it if needed.

    Args:
        source: file or folder, catalogue name, `embedded`, or hub id `owner/name`. A name or a hub id may end
            in `@revision`, a branch, tag or commit. A path that exists, or a string that looks like a path,
            never goes to the hub.
        kind: whether the source names a base or an adapter; decides which files are downloaded.

    Returns:
        The file or folder.

    Raises:
        FileError: the path or name does not exist; or the hub cannot be reached, refuses access, or sends
            damaged files.
    """
    if (path := local_path(source)) is not None:
        return path
    name, _, revision = source.partition("@")
    if "/" in name:
        return download(name, revision or "main", kind)
    if kind == "base" and name != "embedded":
        entry = catalogue().base(name)
        return download(entry.hub_id, revision or entry.revision, kind)
    if revision:
        raise FileError(f"{name} is local: the revision {revision!r} applies only to the hub")
    from .embedded import embedded  # noqa: PLC0415 - with the client of its download

    return embedded() if kind == "base" else adapter_folder(name)


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
