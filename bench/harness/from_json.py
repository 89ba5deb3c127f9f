"""Restore report dataclasses from JSON, the inverse of dataclasses.asdict()."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ...errors import RequestError, shorten
from ...files.json_file import parse_json, read_bounded

_BYTES_MAX = 1 << 26  # of a report file; typical ones have a few hundred thousand
_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}

T = TypeVar("T")


def read_report(path: Path, type_: type[T]) -> T:
    """Read a file that holds the `--json` output of a command.

    Args:
        path: the file.
        type_: dataclass of the report. Unknown fields in the file are ignored. Fields with a default may be
            missing: the file may be older than they are.

    Raises:
        RequestError: the file cannot be read, is not JSON, or does not hold that report.
    """
    return from_json(type_, parse_json(read_bounded(path, _BYTES_MAX), str(path)), str(path))


def from_json(type_: type[T], value: Any, where: str) -> T:
    """Restore a dataclass from what asdict() made of one.

    Args:
        type_: the dataclass.
        value: parsed JSON.
        where: what errors call the value.

    Raises:
        RequestError: a field without a default is missing, or one has the wrong type.
    """
    restored: T = _restore(type_, value, where)
    return restored


def _restore(type_: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(type_), get_args(type_)
    if is_dataclass(type_) or is_dataclass(origin):
        return _restore_dataclass(type_, value, where)
    if origin in (Union, UnionType):
        (some,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _restore(some, value, where)
    if origin is tuple:
        return _restore_tuple(arguments, value, where)
    if origin is Mapping:
        _check(isinstance(value, dict), "an object", value, where)
        return {key: _restore(arguments[1], item, f"{where}: {key}") for key, item in value.items()}
    if origin is Literal:
        _check(value in arguments, f"one of {', '.join(map(str, arguments))}", value, where)
        return value
    allowed = (int, float) if type_ is float else type_
    matches = isinstance(value, allowed) and (type_ is bool or not isinstance(value, bool))
    _check(matches, _NAMES[type_], value, where)
    return value


def _restore_dataclass(type_: Any, value: Any, where: str) -> Any:
    _check(isinstance(value, dict), "an object", value, where)
    class_, arguments = get_origin(type_) or type_, get_args(type_)
    hints = get_type_hints(class_)

    def field(name: str) -> Any:
        if name not in value:
            raise RequestError(f"{where}: {name!r} is missing: not the report that is expected here")
        hint = hints[name]
        if isinstance(hint, TypeVar):
            hint = arguments[0]
        elif getattr(hint, "__parameters__", ()):
            hint = hint[arguments]
        return _restore(hint, value[name], f"{where}: {name}")

    optional = {one.name for one in fields(class_) if one.default is not MISSING}
    names = [one.name for one in fields(class_) if one.name in value or one.name not in optional]
    return class_(**{name: field(name) for name in names})


def _restore_tuple(types: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _check(isinstance(value, list | tuple), "a list", value, where)
    if types[1:] == (...,):
        types = (types[0],) * len(value)
    _check(len(types) == len(value), f"a list of {len(types)}", value, where)
    pairs = zip(types, value, strict=True)
    return tuple(_restore(type_, item, f"{where}[{n}]") for n, (type_, item) in enumerate(pairs))


def _check(matches: bool, expected: str, value: Any, where: str) -> None:
    if not matches:
        raise RequestError(f"{where}: {shorten(value)} is not {expected}")
