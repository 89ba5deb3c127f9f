"""Request bodies of the HTTP API, as pydantic models.

In a field with a default, null means the default, as in OpenAI's API.
"""

from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticUseDefault
from pydantic_core.core_schema import no_info_before_validator_function

from ...request import LOGPROBS_MAX, SEED_MAX, TEMPERATURE_MIN, Sampling
from ..request_limits import RequestLimits

MAX_TOKENS_DEFAULT = 512
CLAIM_CHARS_MAX = 4096
TEXT_CHARS_MAX = 1 << 22  # about a million tokens, more than any context
_NAME_CHARS_MAX = 1024
_MESSAGES_MAX = 1024
_TURNS_MAX = _MESSAGES_MAX // 2
_PROMPTS_MAX = 16
_STOPS_MAX = 16  # each new piece of text is searched for all stop strings
_STOP_CHARS_MAX = 256
_COMPLETION_LOGPROBS_MAX = 5  # as in OpenAI's API
_DEFAULT = Sampling()

T = TypeVar("T")
ModelType = TypeVar("ModelType", bound="RequestBody")


class _NullIsDefault:
    """Annotation of a field in which null means the default."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_use_default, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "null"}]}


def _use_default(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


def _whole_number(value: Any) -> Any:
    """1.0 is an integer in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_list(value: Any) -> Any:
    """A string is a list of one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("string_or_list", "Input should be a string or a list of strings")
    return value


def _as_parts(value: Any) -> Any:
    """Message content that is a string is one part of text."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise PydanticCustomError("string_or_list", "Input should be a string or a list of text parts")
    return value


Nullable = Annotated[T, _NullIsDefault()]
WHOLE = BeforeValidator(_whole_number)
Count = Annotated[int, Field(ge=1), WHOLE]
Zero = Annotated[float, Field(ge=0, le=0)]

# A bound on the length also makes pydantic refuse half of a surrogate pair. Validation of a list ends at its
# first error, because a body has room for hundreds of thousands.
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Name = Annotated[str, Field(max_length=_NAME_CHARS_MAX)]
StopText = Annotated[str, Field(min_length=1, max_length=_STOP_CHARS_MAX)]
StopTexts = Annotated[list[StopText], Field(max_length=_STOPS_MAX, fail_fast=True)]
Prompts = Annotated[list[Text], Field(min_length=1, max_length=_PROMPTS_MAX, fail_fast=True)]


class RequestBody(BaseModel):
    """An object of a request body: no unknown fields, and no conversion between JSON's types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_one_unknown(cls, value: Any) -> Any:
        """Of an object with more fields than there are, one unknown field: each costs an error."""
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {next(name for name in value if name not in known): None}


class TextPart(RequestBody):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


TextParts = Annotated[list[TextPart], Field(max_length=_MESSAGES_MAX, fail_fast=True)]


class ChatMessage(RequestBody):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[TextParts, BeforeValidator(_as_parts, json_schema_input_type=Text | TextParts)]
    refusal: None = None  # part of our answers, which clients send back

    @property
    def text(self) -> str:
        """The content's parts, joined."""
        return "".join(part.text for part in self.content)


class JsonSchemaFormat(RequestBody):
    """A JSON schema for an answer."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: Text | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: Nullable[bool] = Field(True, description="The schema is always enforced.")


class ResponseFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: Nullable[bool] = False


class GenerationRequest(RequestBody):
    """Fields of all requests that generate text."""

    model: Name | None = Field(None, description="A model name from /v1/models; by default the first.")
    max_tokens: Nullable[Count] = MAX_TOKENS_DEFAULT
    calculator: Nullable[bool] = Field(True, description="Complete arithmetic with exact results.")
    stream: Nullable[bool] = False


class OpenAiRequest(GenerationRequest):
    """Fields of both OpenAI endpoints."""

    n: Nullable[Count] = Field(1, description="Number of answers.")
    stop: Nullable[
        Annotated[StopTexts, BeforeValidator(_as_list, json_schema_input_type=StopText | StopTexts)]
    ] = Field([], description="Strings that end the answer; they are not included in it.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description=f"0 or at least {TEMPERATURE_MIN}. By default 0 (greedy), or 0.7 if n is above 1."
    )
    top_p: Nullable[Annotated[float, Field(gt=0, le=1)]] = _DEFAULT.top_p
    top_k: Nullable[Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]] = Field(
        _DEFAULT.top_k, description="0 disables top-k."
    )
    min_p: Nullable[Annotated[float, Field(ge=0, lt=1)]] = _DEFAULT.min_p
    seed: Annotated[int, Field(ge=0, le=SEED_MAX), WHOLE] | None = Field(
        None, description="By default random."
    )
    stream_options: StreamOptions | None = None
    presence_penalty: Nullable[Zero] = Field(0, description="Only 0 is supported.")
    frequency_penalty: Nullable[Zero] = Field(0, description="Only 0 is supported.")


class ChatRequest(OpenAiRequest):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MESSAGES_MAX, fail_fast=True)]
    max_completion_tokens: Count | None = Field(None, description="Takes precedence over max_tokens.")
    response_format: ResponseFormat | None = Field(
        None, description="Format of the answer; a schema that cannot be enforced is an error."
    )
    logprobs: Nullable[bool] = False
    top_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX), WHOLE] | None = Field(
        None, description="Requires logprobs."
    )

    @property
    def prompt_json(self) -> object:
        """The messages, for the log."""
        return [{"role": message.role, "content": message.text} for message in self.messages]


class CompletionRequest(OpenAiRequest):
    """Body of /v1/completions."""

    prompt: Annotated[Prompts, BeforeValidator(_as_list, json_schema_input_type=Text | Prompts)]
    logprobs: Annotated[int, Field(ge=0, le=_COMPLETION_LOGPROBS_MAX), WHOLE] | None = None

    @property
    def prompt_json(self) -> object:
        """The prompts, for the log."""
        return self.prompt


class EarlierTurn(RequestBody):
    """A question that was asked before, and its answer."""

    question: Text
    answer: Text


class AnswerRequest(GenerationRequest):
    """Body of /v1/answer."""

    question: Annotated[Text, Field(min_length=1)]
    turns: Nullable[Annotated[list[EarlierTurn], Field(max_length=_TURNS_MAX, fail_fast=True)]] = Field(
        [],
        description="Earlier turns of the conversation; the oldest are dropped if the context has no room.",
    )
    system: Text | None = None
    votes: Nullable[Count] = 1


class CheckRequest(RequestBody):
    """Body of /v1/check."""

    claim: Annotated[str, Field(max_length=CLAIM_CHARS_MAX)]


def limited(model: type[ModelType], limits: RequestLimits) -> type[ModelType]:
    """The model of a request body with the limits of a server."""
    result = _limited(model, limits)
    assert issubclass(result, model)
    return result


@cache
def _limited(model: type[RequestBody], limits: RequestLimits) -> type[RequestBody]:
    maxima = {
        "max_tokens": limits.max_tokens,
        "max_completion_tokens": limits.max_tokens,
        "n": limits.votes,
        "votes": limits.votes,
    }
    fields: dict[str, Any] = {}
    for name in maxima.keys() & model.model_fields.keys():
        field, maximum = model.model_fields[name], maxima[name]
        default = None if field.default is None else min(field.default, maximum)
        count = Nullable[Annotated[int, Field(ge=1, le=maximum), WHOLE]]
        fields[name] = (count, Field(default, description=field.description))
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)
