"""Files that a run appends a line to as it goes, so that one that was killed goes on where it was."""

import os
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, none where there is none; what a killed run left of another one is cut off.

    Raises:
        OutputError: it cannot be read, or not be cut.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
    except OSError as error:
        raise _failed(path, error) from None
    return whole.splitlines()


def append_line(path: Path, line: str) -> None:
    """Put a line on record: from here on it is on disk, and if that cannot be, nothing of it is.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("ab") as file:
            start = file.tell()
            try:
                file.write(f"{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # a full disk keeps half a line
                    os.truncate(path, start)
                raise
    except OSError as error:
        raise _failed(path, error) from None


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot write: {error.strerror or error}")
