"""A base as a person names it, found: a folder, a GGUF, a name of the catalogue, `embedded` or a hub id."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..convert.source_ids import provenance_name
from ..errors import ThirteenError
from ..files.gguf.header import read_header
from ..files.gguf.metadata import MERGED_ADAPTER
from .catalogue import catalogue
from .fetch import fetch, local_path

_PROVENANCE = "thirteen.base.id"


@dataclass(frozen=True, slots=True)
class Base:
    """A base that was found.

    Attributes:
        path: a folder of safetensors, or a GGUF.
        name: its name in the catalogue; None if it has none.
        id: its name in the provenance of what is made of it: as given, or the last part of a path.
        trained_id: what the adapters that are trained on it record: its hub id, if the catalogue has it. A
            GGUF that an adapter was merged into is another base.
    """

    path: Path
    name: str | None
    id: str
    trained_id: str


def resolve_base(source: str, *, original: bool = False) -> Base:
    """Find a base; it is downloaded if needed.

    Args:
        source: see fetch().
        original: whether a base that the catalogue has, by whatever name or in whatever GGUF, is the file of
            the catalogue, of which the bases of short codes are computed.

    Raises:
        FileError: see fetch().
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
    made_from = metadata.get(_PROVENANCE)
    return catalogue().base_name(made_from) if isinstance(made_from, str) else None


def _metadata(path: Path | None) -> Mapping[str, Any]:
    """The metadata of a GGUF; none of a folder, or of a damaged file, which is reported when it is opened."""
    with suppress(ThirteenError):
        return read_header(path).metadata if path and path.is_file() else {}
    return {}
