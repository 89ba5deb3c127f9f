"""A report out of its JSON: what dataclasses.asdict() made of a dataclass, as one again."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ...errors import RequestError
from ...files.json_file import parse_json, read_bounded

_BYTES_MAX = 1 << 26  # of a report: one has a few hundred thousand
_SHOWN = 60  # characters of a value that is not what it should be
_PLAIN = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}

T = TypeVar("T")


def read_report(path: Path, type_: type[T]) -> T:
    """Read the JSON that a command printed with --json.

    Args:
        path: the file.
        type_: of the report, a dataclass. What it has no field for is passed over.

    Raises:
        RequestError: the file cannot be read, is not JSON, or not of that report.
    """
    return from_json(type_, parse_json(read_bounded(path, _BYTES_MAX), str(path)), str(path))


def from_json(type_: type[T], said: Any, where: str) -> T:
    """Make a dataclass of what asdict() made of one.

    Args:
        type_: the dataclass.
        said: of JSON's kinds of values.
        where: what to call it in an error.

    Raises:
        RequestError: a field is missing, or is not of its type.
    """
    made: T = _value(type_, said, where)
    return made


def _value(type_: Any, said: Any, where: str) -> Any:
    origin, of = get_origin(type_), get_args(type_)
    if is_dataclass(type_) or is_dataclass(origin):
        return _dataclass(type_, said, where)
    if origin in (Union, UnionType):
        return _optional(of, said, where)
    if origin is tuple:
        return _tuple(of, said, where)
    if origin is Mapping:
        _check(isinstance(said, dict), "an object", said, where)
        return {key: _value(of[1], value, f"{where}: {key}") for key, value in said.items()}
    if origin is Literal:
        _check(said in of, f"one of {', '.join(map(str, of))}", said, where)
        return said
    allowed = (int, float) if type_ is float else type_
    of_kind = isinstance(said, allowed) and (type_ is bool or not isinstance(said, bool))
    _check(of_kind, _PLAIN[type_], said, where)
    return said


def _dataclass(type_: Any, said: Any, where: str) -> Any:
    _check(isinstance(said, dict), "an object", said, where)
    made, of = get_origin(type_) or type_, get_args(type_)
    hints = get_type_hints(made)

    def field(name: str) -> Any:
        if name not in said:
            raise RequestError(f"{where}: {name!r} is missing: it is not of the report that is expected here")
        hint = hints[name]
        if isinstance(hint, TypeVar):
            hint = of[0]
        elif getattr(hint, "__parameters__", ()):
            hint = hint[of]
        return _value(hint, said[name], f"{where}: {name}")

    return made(**{one.name: field(one.name) for one in fields(made)})


def _optional(of: tuple[Any, ...], said: Any, where: str) -> Any:
    (some,) = (one for one in of if one is not NoneType)
    return None if said is None else _value(some, said, where)


def _tuple(of: tuple[Any, ...], said: Any, where: str) -> tuple[Any, ...]:
    _check(isinstance(said, list | tuple), "a list", said, where)
    kinds = [of[0]] * len(said) if of[1:] == (...,) else of
    _check(len(kinds) == len(said), f"a list of {len(kinds)}", said, where)
    pairs = zip(kinds, said, strict=True)
    return tuple(_value(kind, value, f"{where}[{at}]") for at, (kind, value) in enumerate(pairs))


def _check(holds: bool, what: str, said: Any, where: str) -> None:
    if not holds:
        raise RequestError(f"{where}: is {repr(said)[:_SHOWN]}, not {what}")
