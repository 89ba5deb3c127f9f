"""A request's body: of a bounded size, JSON, and what a schema says, each field checked by name."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from ..http_errors import HttpError

Schema = Mapping[str, Any]
JSON_TYPE = "application/json"
_DISCARDED_MAX = 1 << 26  # bytes of a body that is too large, read so that the client hears why it is refused

_KINDS: dict[type, str] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}

# For each keyword that bounds a value: whether one holds, and how to say what should be.
_RULES: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "enum": (lambda value, allowed: value in allowed, "be one of"),
    "minimum": (lambda value, bound: value >= bound, "be at least"),
    "maximum": (lambda value, bound: value <= bound, "be at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "be above"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "be below"),
    "minLength": (lambda value, bound: len(value) >= bound, "have a length of at least"),
    "maxLength": (lambda value, bound: len(value) <= bound, "have a length of at most"),
    "minItems": (lambda value, bound: len(value) >= bound, "have a length of at least"),
    "maxItems": (lambda value, bound: len(value) <= bound, "have a length of at most"),
}


async def read_body(request: Request, schema: Schema, bound: int) -> dict[str, Any]:
    """Read the JSON object that a request carries.

    Args:
        request: whose body has not been read.
        schema: of an object; see check_schema().
        bound: the most bytes.

    Returns:
        Its fields, those that were left out with their defaults.

    Raises:
        RefusalError: 415 it is not said to be JSON, 413 it is too large, 400 it is not JSON, 422 it is not
            what the schema says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE or "content-encoding" in request.headers:
        raise HttpError(415, f"the body must be {JSON_TYPE}, with no content encoding")
    fields: dict[str, Any] = check_schema(_parsed(await _bytes(request, bound)), schema)
    return fields


async def _bytes(request: Request, bound: int) -> bytes:
    data, length = bytearray(), 0
    async for part in request.stream():
        length += len(part)
        if length <= bound:
            data += part
        elif length > _DISCARDED_MAX:
            break
    if length > bound:
        raise HttpError(413, f"the body has more than {bound} bytes")
    return bytes(data)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_no_number)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise HttpError(400, f"the body is not JSON at {where}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def check_schema(value: Any, schema: Schema, where: str = "") -> Any:
    """Check a value by a JSON schema, of which the keywords in shapes.py are understood.

    Returns:
        The value; in objects, fields that were left out or are null have their defaults, None if there are
        none.

    Raises:
        RefusalError: 422, naming the field at odds.
    """
    if "anyOf" in schema:
        return _any_of(value, schema["anyOf"], where)
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    value = _typed(value, kinds, where)
    if value is None:
        return schema.get("default")
    for keyword, (holds, what) in _RULES.items():
        if keyword in schema and not holds(value, schema[keyword]):
            raise _unfit(where, f"must {what} {_listed(schema[keyword])}")
    if isinstance(value, list):
        return [check_schema(item, schema["items"], f"{where}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, dict) and "properties" in schema:
        return _fields(value, schema, where)
    return value


def _typed(value: Any, kinds: Sequence[str], where: str) -> Any:
    """The value, if it is of one of some types; 1.0 is an integer too, as JSON Schema has it."""
    kind = _KINDS[type(value)]
    if kind == "number" and "number" not in kinds and math.isfinite(value) and value.is_integer():
        kind, value = "integer", int(value)
    if kind not in kinds and not (kind == "integer" and "number" in kinds):
        raise _unfit(where, f"must be of type {' or '.join(kinds)}, not {kind}")
    if isinstance(value, str):
        _check_text(value, where)
    return value


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _unfit(where, f"has half of a surrogate pair at character {error.start}") from None


def _any_of(value: Any, schemas: Sequence[Schema], where: str) -> Any:
    """The reading by the first schema that fits; else what kept the one from fitting that came furthest."""
    refusals = []
    for schema in schemas:
        try:
            return check_schema(value, schema, where)
        except HttpError as refusal:
            refusals.append(refusal)
    raise max(refusals, key=lambda refusal: len(refusal.param or ""))


def _fields(value: dict[str, Any], schema: Schema, where: str) -> dict[str, Any]:
    known: Mapping[str, Schema] = schema["properties"]
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in known:
            raise HttpError(
                422, f"{prefix}{name} is not supported", code="unsupported_parameter", param=prefix + name
            )
    for name in schema.get("required", ()):
        if name not in value:
            raise _unfit(prefix + name, "is missing")
    return {
        name: check_schema(value[name], of, prefix + name) if name in value else of.get("default")
        for name, of in known.items()
    }


def _unfit(where: str, what: str) -> HttpError:
    return HttpError(422, f"{where or 'the body'} {what}", param=where or None)


def _listed(bound: Any) -> str:
    return ", ".join(map(repr, bound)) if isinstance(bound, list) else str(bound)
