"""What a command leaves in the cache folder."""

from pathlib import Path


def leftovers(cache: Path) -> list[Path]:
    """The files in the cache folder but for the choice of settings, which is meant to stay."""
    return [path for path in cache.iterdir() if not path.name.startswith("compute-")]
