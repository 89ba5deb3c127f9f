"""Reading of JSON request bodies: size limit, parsing, and validation by a pydantic model."""

import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from ..http_errors import OLLAMA_PATHS, HttpError
from .request_fields import is_text

JSON_TYPE = "application/json"
_DISCARDED_BYTES_MAX = 1 << 26  # an oversized body is read up to here, so that the client receives the 413

# pydantic's error types whose messages speak of Python; the others say what "should" be.
_PROBLEMS = {
    "dict_type": "must be an object",
    "extra_forbidden": "is not supported",
    "missing": "is missing",
    "model_type": "must be an object",
    "string_unicode": "has half of a surrogate pair",
}

ModelType = TypeVar("ModelType", bound=BaseModel)


async def read_body(
    request: Request, model: type[ModelType], max_bytes: int, ignored: list[str] | None
) -> ModelType:
    """Read and validate the JSON object in a request body; request.state.body_bytes will be its size.

    Args:
        request: a request whose body has not been read.
        model: model of the object.
        max_bytes: maximum size of the body.
        ignored: gets the names of the fields that have no effect; None refuses them.

    Raises:
        HttpError: 415 the content type is not JSON, 413 the body is too large, 400 the body is not JSON,
            422 the object does not fit the model.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can send other types unasked, but not without its origin; Ollama's clients do.
    without_origin = request.url.path.startswith(OLLAMA_PATHS) and "origin" not in request.headers
    if not (without_origin or content_type == JSON_TYPE) or "content-encoding" in request.headers:
        raise HttpError(415, f"the body must be {JSON_TYPE}, with no content encoding")
    data = await _read_bytes(request, max_bytes)
    request.state.body_bytes = len(data)
    value = _parse_json(data)
    try:
        return model.model_validate(value, context=ignored)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    raise _to_http_error(details, value)


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
        return json.loads(data.decode(), parse_float=_finite, parse_constant=_finite)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise HttpError(400, f"the body is not JSON at {position}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise HttpError(400, f"the body: not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except RecursionError:
        raise HttpError(400, "the body is nested too deeply") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise HttpError(400, "the body has a number with too many digits") from None


def _finite(text: str) -> float:
    """A number; Python's parser accepts NaN and Infinity, and takes 1e999 for the latter."""
    if not math.isfinite(value := float(text)):
        raise HttpError(400, f"the body is not JSON: {text} is not a finite number")
    return value


def _to_http_error(details: Sequence[ErrorDetails], body: Any) -> HttpError:
    """One of the errors in a body: that of an unsupported field, or else the first."""
    error = min(details, key=lambda error: error["type"] != "extra_forbidden")
    path, value = _locate(error, body)
    unknown = error.get("ctx", {}) if error["type"] == "extra_forbidden" else {}
    if unknown:
        path = _field(path, unknown["name"])
    if error["type"] == "string_unicode" and isinstance(value, dict):  # a name that is no text
        name = next(name for name in value if not is_text(name))
        path, error = _field(path, name), {**error, "type": "extra_forbidden"}
    _, should, rest = error["msg"].replace(" after validation", "").partition(" should ")
    problem = _PROBLEMS.get(error["type"]) or (f"must {rest}" if should else error["msg"])
    code = "unsupported_parameter" if error["type"] == "extra_forbidden" else ""
    use = f": {unknown['use']}" if unknown.get("use") else ""
    return HttpError(422, f"{path or 'the body'} {problem}{use}", code=code, param=path or None)


def _locate(error: ErrorDetails, value: Any) -> tuple[str, Any]:
    """Path and value of the field that an error is about, in a body.

    pydantic's location may have steps that the body lacks: of a list for which the body has one value, and
    the kind of a union. They are left out.
    """
    path, is_missing = "", error["type"] == "missing"
    for place, step in enumerate(error["loc"], 1 - len(error["loc"])):
        if isinstance(step, int) and isinstance(value, list):
            path, value = f"{path}[{step}]", value[step]
        elif (
            isinstance(step, str)
            and isinstance(value, dict)
            and (step in value or (is_missing and not place))
        ):
            path, value = _field(path, step), value.get(step)
    return path, value


def _field(path: str, name: str) -> str:
    """Path of a field of an object; quotes show a name that is empty."""
    name = name or '""'
    return f"{path}.{name}" if path else name
