"""JSON and JSON lines from untrusted files: bounded in size, with errors that name the file and the line.

from_json() is the inverse of dataclasses.asdict(), for reports and the records of journals.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ..errors import FileError, RequestError, one_line, shorten
from .received_files import open_regular, read_errors

T = TypeVar("T")

CONFIG_BYTES_MAX = 1 << 22  # the largest published tokenizer_config.json has 1.2 MB
TOKENIZER_BYTES_MAX = 1 << 26  # the largest published tokenizer.json is half of this
LINES_BYTES_MAX = 1 << 26  # of a file of JSON lines
LINE_BYTES_MAX = 1 << 20
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # in JSON, a pair of them is one character


def read_json(path: Path, max_bytes: int = CONFIG_BYTES_MAX) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Parsed, JSON takes up to thirty times the memory of its text: hence a bound for each kind of file.

    Raises:
        FileError: the file cannot be read, is larger than `max_bytes`, or holds no object.
    """
    return _object(read_bounded(path, max_bytes), str(path))


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a whole file of at most `max_bytes` bytes.

    Raises:
        FileError: the file cannot be read, or is larger.
    """
    with read_errors(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise FileError(f"{path}: more than {max_bytes:,} bytes, the limit")
        return file.read(size)  # and no more, if it grows


def decode_utf8(data: bytes, where: str) -> str:
    """Decode text, or raise FileError, which begins with `where`."""
    try:
        return data.decode()
    except UnicodeDecodeError as failure:
        raise FileError(f"{where}: not UTF-8: {failure.reason} at byte {failure.start + 1}") from None


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON in UTF-8, or raise FileError, which begins with `where`."""
    text = decode_utf8(data, where)
    try:
        value = json.loads(text.removeprefix("\ufeff"))  # a byte order mark, as editors of Windows write
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FileError(f"{where}: has a lone surrogate, which is not a character") from None
    except (ValueError, RecursionError) as failure:
        raise FileError(f"{where}: not JSON: {failure}") from None
    return value


@contextmanager
def layout_errors(where: object) -> Iterator[None]:
    """Raise what untrusted values of an unexpected type or range cause in the block as a FileError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, re.error) as failure:
        raise FileError(f"{where}: unexpected layout ({one_line(failure)})") from None
    except RecursionError:
        raise FileError(f"{where}: nested too deeply") from None


def read_json_lines(path: Path, max_bytes: int = LINES_BYTES_MAX) -> Iterator[tuple[str, dict[str, Any]]]:
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
    """Parse a line that holds a JSON object, or raise FileError, which begins with `where`."""
    if len(line) > LINE_BYTES_MAX:
        raise FileError(f"{where} has {len(line)} bytes; at most {LINE_BYTES_MAX} are read")
    return _object(line, where)


def _object(data: bytes, where: str) -> dict[str, Any]:
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise FileError(f"{where}: not a JSON object")
    return value


def json_texts(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        if isinstance(value, Mapping):
            yield from value
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from json_texts(inner)


def from_json(type_: type[T], value: Any, where: str) -> T:
    """Restore a dataclass from what asdict() made of one.

    Raises:
        FileError: a field without a default is missing, one has the wrong type or a value that the
            dataclass refuses, or a number is NaN or infinite.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - few need it, and it takes long to import

    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        raise FileError(f"{where}: has a number that is NaN or infinite") from None
    try:
        # As JSON, in which a list can be a tuple: strictly, a Python list cannot.
        restored: T = _adapter(type_).validate_json(text, strict=True)
    except ValidationError as error:
        raise FileError(f"{where}{_first_error(error)}") from None
    except RequestError as error:
        raise FileError(f"{where}: {error}") from None
    return restored


def _make_adapter(type_: Any) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(type_)


# Making an adapter takes longer than reading hundreds of lines of a log with it.
_adapter: Callable[[Any], Any] = cache(_make_adapter)


def _first_error(error: Any) -> str:
    """Path of the first wrong value, as in "by_length[0]: tokens", and what is wrong with it."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in first["loc"])
    if first["type"] == "missing":
        return f"{path} is missing: not what is expected here"
    return f"{path}: {shorten(first['input'])} {first['msg'].removeprefix('Input ')}"
