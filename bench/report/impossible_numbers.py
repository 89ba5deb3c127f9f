"""Numbers that no measurement can have had, and that a report could not divide by or draw."""

from typing import Any

from ...errors import RequestError, shorten

_LARGEST = 1e100
_POSITIVE = ("file_bytes", "peak_rss_bytes", "weights")
_NOT_EMPTY = ("adapted_percentiles", "base_percentiles", "groups", "types")


def check_numbers(value: Any, where: str, name: str = "") -> None:
    """Refuse a model of no bytes or weights, a list of no percentiles, and numbers beyond all measure.

    Args:
        value: what asdict() makes of a report, or a part of it.
        where: what errors call the value.
        name: field of the value; of a list's items, that of the list.

    Raises:
        RequestError: a number is impossible.
    """
    match value:
        case dict() | tuple() if not value and name in _NOT_EMPTY:
            raise RequestError(f"{where} is empty")
        case dict():
            for key, item in value.items():
                check_numbers(item, f"{where}: {key}", key)
        case tuple():
            for number, item in enumerate(value):
                check_numbers(item, f"{where}[{number}]", name)
        case int() | float() if abs(value) > _LARGEST or (name in _POSITIVE and value <= 0):
            raise RequestError(f"{where} cannot be {shorten(value)}")
