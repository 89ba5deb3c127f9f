"""Request bodies: bounded JSON that fits a pydantic model, and the fields that several formats share."""

from collections.abc import Sequence
from secrets import randbelow
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from ...runtime.options import BIAS_MAX, SEED_MAX, Effort, Options
from ..engine_service import Call
from ..http_errors import OLLAMA_PATHS, HttpError

JSON_TYPE = "application/json"
_DISCARDED_BYTES_MAX = 1 << 26  # an oversized body is read up to here, so that the client receives the 413
_INT_MAX = 2**31 - 1
_DEFAULT = Options()
# Fields that would change the answer if they had an effect; docs/serving.md says what to use instead.
_REFUSED = {
    *("audio", "background", "best_of", "context", "conversation", "function_call", "functions", "images"),
    *("logprobs", "max_tokens", "n", "num_predict", "prompt", "raw", "response_format", "stop", "suffix"),
    *("template", "top_logprobs", "web_search_options"),
}
# pydantic's error types whose messages speak of Python; the others say what "should" be.
_PROBLEMS = {"dict_type": "must be an object", "missing": "is missing", "model_type": "must be an object"}

Json = dict[str, Any]


class RequestBody(BaseModel):
    """An object of a request body.

    Null stands for a field's default, and 2.0 for 2. A field that the model does not know is left out, and
    named in a header of the response unless it is empty.
    """

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
            if name in _REFUSED or name in Sampling.model_fields:
                raise PydanticCustomError("unsupported", "is not supported here", {"name": name})
            if info.context is not None:
                info.context[name] = None
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
    """The error that validation got furthest to; of a union, rather a wrong value than a wrong type."""
    found = [(_path(detail, body), detail) for detail in error.errors(include_url=False)]
    path, detail = max(found, key=lambda one: (len(one[0]), not one[1]["type"].endswith("_type")))
    steps = (f"[{step}]" if isinstance(step, int) else "." + (step or '""') for step in path)
    param = "".join(steps).removeprefix(".")
    _, should, rest = detail["msg"].partition(" should ")
    problem = f"must {rest.replace(' after validation', '')}" if should else detail["msg"]
    problem = _PROBLEMS.get(detail["type"], problem)
    return HttpError(422, f"{param or 'the body'} {problem}", param=param or None)


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
    return [*path, error["ctx"]["name"]] if error["type"] == "unsupported" else path


def _several(value: Any) -> Any:
    """A list of texts, for which a single text, or the tokens of one, may stand."""
    single = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int))
    return [value] if single else value


T = TypeVar("T")
Schema = dict[str, JsonValue]

# Validation of a list ends at its first error, because a body has room for hundreds of thousands.
MessageList = Annotated[list[T], Field(max_length=1024, fail_fast=True)]
ToolList = Annotated[list[T], Field(max_length=128, fail_fast=True)]  # as in OpenAI's API
Count = Annotated[int, Field(ge=1)]
_Token = Annotated[int, Field(ge=0, le=_INT_MAX)]
Tokens = Annotated[list[_Token], Field(min_length=1, max_length=1 << 20, fail_fast=True)]
_TokenText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-BIAS_MAX, le=BIAS_MAX)]
SEVERAL = BeforeValidator(_several, str | list[Any])
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# Each new piece of text is searched for all stop strings.
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=16, fail_fast=True, description="Strings that end the answer, and are not part of it."),
    BeforeValidator(lambda stop: _several(stop) if stop else [], str | list[str]),
]
FormatType = Literal["text", "json_object", "json_schema"]
ToolChoiceWord = Literal["", "none", "auto", "required"]
ModelName = Annotated[str | None, Field(description="A model name from /v1/models; by default the first.")]
EffortName = Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"] | bool


def read_effort(name: str | bool, *, thinks: bool) -> tuple[Effort, bool | None]:
    """The effort, and whether a model that can think does so; None leaves it to its chat template."""
    if name is True:  # other models vote instead
        return (Effort.LOW if thinks else Effort.MEDIUM), True
    others = {"": "low", "none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
    effort = Effort(others.get(name, name)) if name else Effort.LOW
    return effort, (False if name in (False, "none") else None)


class TextPart(RequestBody):
    """A part of a message's content; the other names of its type are those of the Responses API."""

    type: Literal["text", "input_text", "output_text", "reasoning_text"]
    text: str


Content = str | MessageList[TextPart]


def text_of(content: str | Sequence[TextPart] | None) -> str:
    """The text of a message's content, whose parts are joined."""
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


class SchemaFormat(RequestBody):
    """A JSON schema for an answer; it is always enforced."""

    name: str | None = None
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema", description="Required for json_schema.")
    strict: bool | None = None


class NamedFunction(RequestBody):
    """The name of a function."""

    name: FunctionName


class FunctionDefinition(NamedFunction):
    """A function that the model may call."""

    description: str | None = None
    parameters: Schema | None = Field(None, description="A JSON schema; by default no parameters.")
    strict: bool = Field(False, description="Whether the schema is enforced where a call is optional.")


class Tool(RequestBody):
    """A tool of a request: a function of the client."""

    type: Literal["function"]
    function: FunctionDefinition


class Answering(RequestBody):
    """Fields of all requests for an answer of a chat model."""

    calculator: bool = Field(True, description="Complete arithmetic with exact results.")
    think_budget: Annotated[int, Field(ge=0)] | None = None  # tokens after which a thought is ended


class Sampling(RequestBody):
    """Fields of all requests that choose how to sample."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None  # 0, or 0.7 for several answers
    top_p: Annotated[float, Field(ge=0, le=1)] = _DEFAULT.top_p
    top_k: Annotated[int, Field(ge=0, le=_INT_MAX)] = _DEFAULT.top_k
    min_p: Annotated[float, Field(ge=0, lt=1)] = _DEFAULT.min_p
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None  # random, as at -1
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repeat_penalty: Annotated[float, Field(ge=0.01, le=BIAS_MAX)] = 1.0
    repeat_last_n: Annotated[int, Field(ge=-1, le=_INT_MAX)] = -1  # the whole answer
    logit_bias: Annotated[dict[_TokenText, _Bias], Field(max_length=1024)] = Field({})

    @property
    def sampling(self) -> Json:
        """The fields of the engine's Options that choose how to sample."""
        return {name: getattr(self, name) for name in Sampling.model_fields} | {
            "temperature": self.temperature or 0.0,
            "seed": randbelow(SEED_MAX + 1) if self.seed in {None, -1} else self.seed % (SEED_MAX + 1),
            "logit_bias": {int(token): bias for token, bias in self.logit_bias.items()},
        }
