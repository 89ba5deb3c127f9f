"""A base as a person names it, found: a folder, a GGUF, a name of the catalogue, `embedded` or a hub id."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, OfflineError, ThirteenError
from ..files.gguf.header import MERGED_ADAPTER, read_header
from .catalogue import adapter_folder, catalogue
from .embedded import embedded, find_embedded
from .hub import RepositoryKind, cached_bases, download

_log = logging.getLogger(__name__)
_FILES = (".gguf", ".safetensors")  # no repository name ends in these


@dataclass(frozen=True, slots=True)
class Base:
    """A base that was found.

    Attributes:
        trained_id: what the adapters that are trained on it record: its hub id, if the catalogue has it. A
            GGUF that an adapter was merged into is another base.
    """

    path: Path  # a folder of safetensors, or a GGUF
    name: str | None  # its name in the catalogue; None if it has none
    id: str  # its name in the provenance of what is made of it: as given, or the last part of a path
    trained_id: str


def fetch(source: str, *, kind: RepositoryKind) -> Path:
    """Find the file or folder of a base or an adapter; it is downloaded if needed.

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


def provenance_name(source: str) -> str:
    """The name of a base or an adapter in the provenance: as given, or the last part of a path."""
    # Path.exists() raises for a code that is too long for the file system.
    return Path(source).resolve().name if source and os.path.exists(source) else source  # noqa: PTH110


def resolve_base(source: str, *, original: bool = False) -> Base:
    """Find a base; it is downloaded if needed.

    Args:
        source: see fetch().
        original: whether a base that the catalogue has, by whatever name or in whatever GGUF, is the file of
            the catalogue, of which the bases of short codes are computed.
    """
    local, id_ = local_path(source), provenance_name(source)
    metadata = _metadata(local)
    name = _catalogue_name(source, local, metadata)
    if original and name and "@" not in source:
        path = catalogue_weights(name)
    else:
        path = local or fetch(source, kind="base")
    return Base(path, name, id_, catalogue().hub_id(name) if name and MERGED_ADAPTER not in metadata else id_)


def catalogue_weights(name: str) -> Path:
    """Find the weights of a base by its catalogue name, which may be the embedded one's."""
    return fetch("embedded" if name == catalogue().embedded.base else name, kind="base")


def base_name(source: str) -> str | None:
    """Find the catalogue name of a base, or of the base that a GGUF was made from; None if it has none.

    A path that exists is that file or folder, as in fetch(), even if it has a name of the catalogue.

    Raises:
        FileError: it looks like a path, but there is no such file or folder.
    """
    local = local_path(source)
    return _catalogue_name(source, local, _metadata(local))


def _catalogue_name(source: str, local: Path | None, metadata: Mapping[str, Any]) -> str | None:
    if local is None:
        return catalogue().base_name(source)
    if local.name == catalogue().embedded.file and local.is_file():
        return catalogue().embedded.base
    made_from = metadata.get("thirteen.base.id")
    return catalogue().base_name(made_from) if isinstance(made_from, str) else None


def _metadata(path: Path | None) -> Mapping[str, Any]:
    """The metadata of a GGUF; none of a folder, or of a damaged file, which is reported when it is opened."""
    with suppress(ThirteenError):
        return read_header(path).metadata if path and path.is_file() else {}
    return {}
