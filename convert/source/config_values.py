"""Numbers of a config.json, checked."""

from collections.abc import Mapping
from typing import Any

from ...errors import FileError, shorten
from ...files.gguf.model_shape import MAX_COUNT


def number(values: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A positive number within the range of float32; FileError, with `where` and the key, if it is none."""
    value = default if values.get(key) is None else values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-37 < value < 1e38:
        raise FileError(f"{where}: {key} is {shorten(value)}, not a positive number of float32")
    return value


def count(
    values: Mapping[str, Any], key: str, where: str, default: int | None = None, most: int = MAX_COUNT
) -> int:
    """A positive integer up to `most`."""
    value = number(values, key, where, default)
    if not isinstance(value, int) or value > most:
        raise FileError(f"{where}: {key} is {shorten(value)}, not an integer up to {most}")
    return value


def numbers(values: Mapping[str, Any], key: str, length: int, where: str) -> tuple[float, ...]:
    """A list of `length` positive numbers."""
    found = values.get(key)
    if not isinstance(found, list) or len(found) != length:
        raise FileError(f"{where}: {key} is {shorten(found)}, not a list of {length} numbers")
    return tuple(number({key: value}, key, where) for value in found)


def flag(values: Mapping[str, Any], key: str, where: str) -> bool:
    """A boolean; a missing one and null are false."""
    value = values.get(key) or False
    if not isinstance(value, bool):
        raise FileError(f"{where}: {key} is {shorten(value)}, neither true nor false")
    return value
