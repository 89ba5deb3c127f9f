"""Checks of values given by a user."""

import math
from typing import TypeGuard

from ..errors import RequestError, shorten


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite int or float, and not a bool."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int beyond the range of floats
        return False


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise RequestError unless `value` is an integer from `minimum` to `maximum`; None is no upper limit."""
    if not is_integer(value) or value < minimum or (maximum is not None and value > maximum):
        expected = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise RequestError(f"{name} must be an integer {expected}, not {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise RequestError unless `value` is of a type."""
    if not isinstance(value, kind):
        expected = "a string" if kind is str else f"a {kind.__name__}"
        raise RequestError(f"{name} must be {expected}, not {shorten(value)}")
