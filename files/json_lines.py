"""JSON lines from untrusted files: one object per line, with errors that name file and line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FileError
from .json_file import parse_json, read_bounded

MAX_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20


def read_json_lines(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of at most `max_bytes` with one JSON object per line; blank lines are skipped.

    Yields:
        The place as "FILE: line N", and the object.

    Raises:
        FileError: the file cannot be read or is too large, or a line is too long or not a JSON object.
    """
    for number, line in numbered_lines(read_bounded(path, max_bytes)):
        where = f"{path}: line {number}"
        yield where, json_object(line, where)


def numbered_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    lines = enumerate(data.split(b"\n"), 1)
    return ((number, line) for number, line in lines if line.strip())


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """Parse a line that holds a JSON object.

    Raises:
        FileError: it is too long, or not a JSON object. The message begins with `where`.
    """
    if len(line) > MAX_LINE_BYTES:
        raise FileError(f"{where} has {len(line)} bytes; at most {MAX_LINE_BYTES} are read")
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise FileError(f"{where}: not a JSON object")
    return value
