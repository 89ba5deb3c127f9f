"""Names of a conversion's inputs in the provenance of its file."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceIds:
    """Names of the inputs in the provenance of a file."""

    base: str = ""  # name of the base; by default that of its folder or file
    adapter: str = ""  # name of the adapter; by default that of its folder


DEFAULT_IDS = SourceIds()


def provenance_name(source: str) -> str:
    """The name of a base or an adapter in the provenance: as given, or the last part of a path."""
    # Path.exists() raises for a code that is too long for the file system.
    return Path(source).resolve().name if source and os.path.exists(source) else source  # noqa: PTH110
