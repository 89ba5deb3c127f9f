"""JSON lines from outside: one object a line, each with the place that an error about it is to name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RequestError

MAX_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of one JSON object a line; blank lines are passed over.

    Yields:
        Where it stands, as "FILE: line N", and the object.

    Raises:
        RequestError: the file cannot be read or is too large, or a line is too long or no JSON object.
    """
    for number, line in numbered_lines(read_bounded(path)):
        where = f"{path}: line {number}"
        yield where, json_object(line, where)


def numbered_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a file's bytes with their numbers, from 1; blank ones are passed over."""
    lines = enumerate(data.split(b"\n"), 1)
    return ((number, line) for number, line in lines if line.strip())


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line is.

    Raises:
        RequestError: it is too long, or no JSON object; the message begins with `where`.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RequestError(f"{where} has {len(line)} bytes; at most {MAX_LINE_BYTES} are read")
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise RequestError(f"{where}: not a JSON object")
    return value


def read_bounded(path: Path) -> bytes:
    """The bytes of a file of at most MAX_BYTES.

    Raises:
        RequestError: it cannot be read, or has more.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise RequestError(f"{path}: more than {MAX_BYTES} bytes, the most that is read")
    return data


def parse_json(data: bytes, where: str) -> Any:
    """The value that some JSON is.

    Raises:
        RequestError: it is none; the message begins with `where`.
    """
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise RequestError(f"{where}: not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from None
