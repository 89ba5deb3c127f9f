"""From a base or adapter as a user writes it to a path on this machine, by way of the hub where need be."""

import importlib.util
import os
from pathlib import Path

from ..errors import DownloadError
from ..files.hashing import file_sha256
from .catalogue import adapter_folder, catalogue
from .hub import What, download

_FILES = (".gguf", ".safetensors")  # no repository's name ends like this


def fetch(source: str, *, revision: str | None = None, what: What) -> Path:
    """Turn a base or an adapter, as a user writes it, into a path on this machine.

    Args:
        source: A file or folder, a name of the catalogue, `embedded`, or a hub id `owner/name`. A name
            or a hub id may end in `@revision`. What exists here, or looks like a path, never goes to the hub.
        revision: A branch, tag or commit of the hub's repository.
        what: Which files are needed, and which names are meant.

    Returns:
        The file or folder.

    Raises:
        DownloadError: No such path or name; or the hub cannot be reached, refuses, or sends damaged files.
    """
    path = _local(source)
    if path is None:
        name, _, at = source.partition("@")
        if at and revision and at != revision:
            raise DownloadError(f"two revisions for {name}: {at!r} in its name and {revision!r} beside it")
        revision = at or revision
        if "/" in name:
            return download(name, revision or "main", what)
        if what == "base" and name != "embedded":
            entry = catalogue().base(name)
            return download(entry.hub_id, revision or entry.revision, what)
        path = embedded() if what == "base" else adapter_folder(name)
    if revision:
        raise DownloadError(f"{source} is on this machine: a revision ({revision!r}) is for the hub only")
    return path


def embedded() -> Path:
    """Find the embedded default's GGUF inside its package, without importing that package.

    Raises:
        DownloadError: The package is missing, or its file is not the one this version was made for.
    """
    entry = catalogue().embedded
    spec = importlib.util.find_spec(entry.package)
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((file for folder in folders if (file := Path(folder, entry.file)).is_file()), None)
    if path is None:
        package = entry.package.replace("_", "-")
        raise DownloadError(f"the embedded model {entry.file} is not installed: pip install {package}")
    if (found := file_sha256(path)) != entry.sha256:
        raise DownloadError(f"{path}: SHA-256 is {found}, not {entry.sha256}")
    return path


def _local(source: str) -> Path | None:
    """Give the path that `source` means, or None if it is a name or a hub id."""
    # Unlike Path's, these take a stranger's ~name as it is, and a name too long as one that does not exist.
    path = Path(os.path.expanduser(source))  # noqa: PTH111
    if source and os.path.exists(path):  # noqa: PTH110
        return path
    name = source.partition("@")[0]
    if not name or name.startswith((".", "/", "~")) or name.endswith(_FILES) or _is_deep(name):
        raise DownloadError(f"{source!r}: no such file or folder")
    return None


def _is_deep(name: str) -> bool:
    return name.count("/") > 1 or "\\" in name
