"""Where a run writes: whatever goes wrong there is one clear line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


@contextmanager
def output_errors(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong in writing `path`, an OSError or one of `others`, into an OutputError."""
    errors: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except errors as error:
        raise OutputError(f"{path}: cannot write: {getattr(error, 'strerror', None) or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if need be.

    Raises:
        OutputError: it cannot be made.
    """
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
