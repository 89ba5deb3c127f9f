"""Reading of request bodies: bounded JSON that fits a pydantic model, or one clear line of what is wrong."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from ..engine_service import Call
from ..http_errors import OLLAMA_PATHS, HttpError

JSON_TYPE = "application/json"
_DISCARDED_BYTES_MAX = 1 << 26  # an oversized body is read up to here, so that the client receives the 413
_IGNORED_MAX = 32  # names that a response tells
_UNSUPPORTED = "unsupported"

# pydantic's error types whose messages speak of Python; the others say what "should" be.
_PROBLEMS = {"dict_type": "must be an object", "missing": "is missing", "model_type": "must be an object"}


class RequestBody(BaseModel):
    """An object of a request body.

    Null stands for a field's default, and 2.0 for 2. A field that the model does not know is left out, and
    named in a header of the response unless it is empty.

    Attributes:
        refused: fields that would change the answer if they had an effect, with what to use instead.
    """

    refused: ClassVar[Mapping[str, str]] = {}
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        names = {field.alias or name for name, field in cls.model_fields.items()}
        for name in value:
            if name in names or value[name] in (False, None, "", [], {}):  # 0 == False
                continue
            if name in cls.refused or cls.model_config.get("extra") == "forbid":
                use = f": {cls.refused[name]}" if name in cls.refused else ""
                raise PydanticCustomError(_UNSUPPORTED, "is not supported{use}", {"name": name, "use": use})
            if info.context is not None and len(info.context) < _IGNORED_MAX and name not in info.context:
                info.context.append(name)
        return {name: _whole(value[name]) for name in value if name in names and value[name] is not None}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Body = TypeVar("Body", bound=RequestBody)


async def read_body(call: Call, model: type[Body]) -> Body:
    """Read and validate the JSON object in the body of a request.

    Raises:
        HttpError: 415 the content type is not JSON, 413 the body is too large, 400 the body is not JSON,
            422 the object does not fit the model.
    """
    headers = call.request.headers
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can send other types unasked, but not without its origin; Ollama's clients do.
    without_origin = call.request.url.path.startswith(OLLAMA_PATHS) and "origin" not in headers
    if not (without_origin or content_type == JSON_TYPE) or "content-encoding" in headers:
        raise HttpError(415, f"the body must be {JSON_TYPE}, with no content encoding")
    data = await _read_bytes(call)
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None
    try:
        return model.model_validate(value, context=call.ignored)
    except ValidationError as error:
        raise _to_http_error(error, value) from None


async def _read_bytes(call: Call) -> bytes:
    data, length, most = bytearray(), 0, call.service.limits.body_bytes
    async for chunk in call.request.stream():
        length += len(chunk)
        if length <= most:
            data += chunk
        elif length > _DISCARDED_BYTES_MAX:
            break
    if length > most:
        raise HttpError(413, f"the body has more than {most} bytes")
    return bytes(data)


def _to_http_error(error: ValidationError, body: Any) -> HttpError:
    """The error that validation got furthest to; of a union, what each of its types wants there."""
    errors = [(_path(detail, body), detail) for detail in error.errors(include_url=False)]
    path = max((path for path, _ in errors), key=len)
    found = [detail for place, detail in errors if place == path]
    # What is wrong with a value says more than that it could have another type.
    found = [detail for detail in found if not detail["type"].endswith(("_type", "literal_error"))] or found
    problem, *others = dict.fromkeys(map(_problem, found))
    text = " or ".join([problem, *(other.removeprefix("must be ") for other in others)])
    steps = (f"[{step}]" if isinstance(step, int) else "." + (step or '""') for step in path)
    param = "".join(steps).removeprefix(".")
    code = "unsupported_parameter" if found[0]["type"] == _UNSUPPORTED else ""
    return HttpError(422, f"{param or 'the body'} {text}", code=code, param=param or None)


def _path(error: ErrorDetails, value: Any) -> list[str | int]:
    """Where an error is; steps of pydantic's location that the body lacks name types of unions."""
    path: list[str | int] = []
    for place, step in enumerate(error["loc"], 1):
        in_list = isinstance(value, list) and isinstance(step, int)
        if in_list or (isinstance(value, dict) and step in value):
            path.append(step)
            value = value[step]
        elif error["type"] == "missing" and place == len(error["loc"]):
            path.append(step)
    return [*path, error["ctx"]["name"]] if error["type"] == _UNSUPPORTED else path


def _problem(error: ErrorDetails) -> str:
    _, should, rest = error["msg"].replace(" after validation", "").partition(" should ")
    return _PROBLEMS.get(error["type"]) or (f"must {rest}" if should else error["msg"])
