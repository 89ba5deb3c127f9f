"""Reading of JSON request bodies: size limit, parsing, and validation against a JSON schema."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from ..http_errors import HttpError

Schema = Mapping[str, Any]
JSON_TYPE = "application/json"
_DISCARDED_BYTES_MAX = 1 << 26  # an oversized body is read up to here, so that the client receives the 413

_JSON_TYPES: dict[type, str] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}

# JSON Schema keywords that constrain a value: the check, and the start of its error message.
_CONSTRAINTS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "enum": (lambda value, allowed: value in allowed, "be one of"),
    "minimum": (lambda value, limit: value >= limit, "be at least"),
    "maximum": (lambda value, limit: value <= limit, "be at most"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "be above"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "be below"),
    "minLength": (lambda value, limit: len(value) >= limit, "have a length of at least"),
    "maxLength": (lambda value, limit: len(value) <= limit, "have a length of at most"),
    "minItems": (lambda value, limit: len(value) >= limit, "have a length of at least"),
    "maxItems": (lambda value, limit: len(value) <= limit, "have a length of at most"),
}


async def read_body(request: Request, schema: Schema, max_bytes: int) -> dict[str, Any]:
    """Read and validate the JSON object in a request body.

    Args:
        request: a request whose body has not been read.
        schema: schema of the object; see validate().
        max_bytes: maximum size of the body.

    Returns:
        The fields of the object, with defaults for missing ones.

    Raises:
        HttpError: 415 the content type is not JSON, 413 the body is too large, 400 the body is not JSON,
            422 the object does not match the schema.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON_TYPE or "content-encoding" in request.headers:
        raise HttpError(415, f"the body must be {JSON_TYPE}, with no content encoding")
    fields: dict[str, Any] = validate(_parse_json(await _read_bytes(request, max_bytes)), schema)
    return fields


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    data, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= max_bytes:
            data += chunk
        elif length > _DISCARDED_BYTES_MAX:
            break
    if length > max_bytes:
        raise HttpError(413, f"the body has more than {max_bytes} bytes")
    return bytes(data)


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise HttpError(400, f"the body is not JSON at {position}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None


def _reject_constant(text: str) -> float:
    """Reject NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{text} is not a number")


def validate(value: Any, schema: Schema, path: str = "") -> Any:
    """Validate a value against a JSON schema that uses only the keywords in schemas.py.

    Args:
        value: parsed JSON.
        schema: the schema.
        path: path of the value in the body, for error messages; "" is the body itself.

    Returns:
        The value. Object fields that are missing or null have their default, or None without a default.

    Raises:
        HttpError: 422, with the path of the invalid field.
    """
    if "anyOf" in schema:
        return _validate_any_of(value, schema["anyOf"], path)
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    value = _check_type(value, types, path)
    if value is None:
        return schema.get("default")
    for keyword, (satisfied, requirement) in _CONSTRAINTS.items():
        if keyword in schema and not satisfied(value, schema[keyword]):
            raise _invalid(path, f"must {requirement} {_format_limit(schema[keyword])}")
    if isinstance(value, list):
        return [validate(item, schema["items"], f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict) and "properties" in schema:
        return _validate_properties(value, schema, path)
    return value


def _check_type(value: Any, types: Sequence[str], path: str) -> Any:
    """The value if it has one of the types; 1.0 also counts as an integer, as in JSON Schema."""
    actual = _JSON_TYPES[type(value)]
    if actual == "number" and "number" not in types and math.isfinite(value) and value.is_integer():
        actual, value = "integer", int(value)
    if actual not in types and not (actual == "integer" and "number" in types):
        raise _invalid(path, f"must be of type {' or '.join(types)}, not {actual}")
    if isinstance(value, str):
        _check_unicode(value, path)
    return value


def _check_unicode(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _invalid(path, f"has half of a surrogate pair at character {error.start}") from None


def _validate_any_of(value: Any, schemas: Sequence[Schema], path: str) -> Any:
    """Validate against the first schema that matches; if none does, raise the error deepest in the value."""
    errors = []
    for schema in schemas:
        try:
            return validate(value, schema, path)
        except HttpError as error:
            errors.append(error)
    raise max(errors, key=lambda error: len(error.param or ""))


def _validate_properties(value: dict[str, Any], schema: Schema, path: str) -> dict[str, Any]:
    properties: Mapping[str, Schema] = schema["properties"]
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in properties:
            raise HttpError(
                422, f"{prefix}{name} is not supported", code="unsupported_parameter", param=prefix + name
            )
    for name in schema.get("required", ()):
        if name not in value:
            raise _invalid(prefix + name, "is missing")
    return {
        name: validate(value[name], field, prefix + name) if name in value else field.get("default")
        for name, field in properties.items()
    }


def _invalid(path: str, problem: str) -> HttpError:
    return HttpError(422, f"{path or 'the body'} {problem}", param=path or None)


def _format_limit(limit: Any) -> str:
    return ", ".join(map(repr, limit)) if isinstance(limit, list) else str(limit)
