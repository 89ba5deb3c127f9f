"""Restore report dataclasses from JSON, the inverse of dataclasses.asdict()."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import FileError, RequestError, shorten
from .json_file import parse_json, read_bounded

_BYTES_MAX = 1 << 26  # of a report file; typical ones have a few hundred thousand

T = TypeVar("T")

# Making an adapter takes longer than reading hundreds of lines of a log with it.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_report(path: Path, type_: type[T]) -> T:
    """Read a file that holds the `--json` output of a command.

    Args:
        path: the file.
        type_: dataclass of the report. Unknown fields in the file are ignored. Fields with a default may be
            missing: the file may be older than they are.

    Raises:
        FileError: the file cannot be read, is not JSON, or does not hold that report.
    """
    return from_json(type_, parse_json(read_bounded(path, _BYTES_MAX), str(path)), str(path))


def from_json(type_: type[T], value: Any, where: str) -> T:
    """Restore a dataclass from what asdict() made of one.

    Args:
        type_: the dataclass.
        value: parsed JSON.
        where: what errors call the value.

    Raises:
        FileError: a field without a default is missing, one has the wrong type or a value that the
            dataclass refuses, or a number is NaN or infinite.
    """
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


def _first_error(error: ValidationError) -> str:
    """Path of the first wrong value, as in "by_length[0]: tokens", and what is wrong with it."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in first["loc"])
    if first["type"] == "missing":
        return f"{path} is missing: not what is expected here"
    return f"{path}: {shorten(first['input'])} {first['msg'].removeprefix('Input ')}"
