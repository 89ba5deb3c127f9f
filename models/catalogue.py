"""What `thirteen` knows by name: bases on the hub, the embedded default, and shipped adapters."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import DownloadError

_HERE = Path(__file__).parent
_ADAPTERS = _HERE / "adapters"


@dataclass(frozen=True)
class CatalogueBase:
    """A base checkpoint on the hub."""

    name: str
    hub_id: str
    revision: str
    licence: str
    gated: bool
    architecture: str  # as GGUF names it
    parameters: int
    config: Mapping[str, Any]  # what decides the shapes, by transformers' names
    public_copy: str | None = None  # of a gated one: never used but where a user names it


@dataclass(frozen=True)
class Embedded:
    """The GGUF inside an installed Python package that serves when no model is named."""

    base: str
    package: str
    file: str
    sha256: str


@dataclass(frozen=True)
class CatalogueAdapter:
    """An adapter that ships with this package, and the base it was trained for."""

    name: str
    base: str

    @property
    def folder(self) -> Path:
        """Where the adapter's PEFT folder lies."""
        return _ADAPTERS / self.name


@dataclass(frozen=True)
class Catalogue:
    """All entries, by name."""

    embedded: Embedded
    bases: Mapping[str, CatalogueBase]
    adapters: Mapping[str, CatalogueAdapter]

    def base(self, name: str) -> CatalogueBase:
        """Look up a base.

        Raises:
            DownloadError: There is none of that name; the message lists those there are.
        """
        if name not in self.bases:
            raise DownloadError(_unknown("base", name, ["embedded", *self.bases]))
        return self.bases[name]


@cache
def catalogue() -> Catalogue:
    """Read `catalogue.toml`, once."""
    table = tomllib.loads((_HERE / "catalogue.toml").read_text(encoding="utf-8"))
    return Catalogue(
        embedded=Embedded(**table["embedded"]),
        bases={name: CatalogueBase(name, **entry) for name, entry in table["bases"].items()},
        adapters={name: CatalogueAdapter(name, **entry) for name, entry in table["adapters"].items()},
    )


def adapter_folder(name: str) -> Path:
    """The folder of a shipped adapter: any that lies under `models/adapters`, listed or being made.

    Raises:
        DownloadError: There is none of that name; the message lists those there are.
    """
    shipped = {folder.name: folder for folder in sorted(_ADAPTERS.glob("*/"))}
    if name not in shipped:
        raise DownloadError(_unknown("adapter", name, shipped))
    return shipped[name]


def _unknown(kind: str, name: str, known: Collection[str]) -> str:
    close = get_close_matches(name.lower(), known, n=2, cutoff=0.7)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"no {kind} {name!r}: {hint}it is no file or folder here, no hub id (owner/name), "
        f"and not one of {', '.join(known)}"
    )
