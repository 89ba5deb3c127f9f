"""Bodies of Ollama's API: requests and errors."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .request_fields import JSON_OBJECT, WHOLE, Count, Name, Nullable, Schema, StopTexts, Text, Unsupported
from .request_models import MESSAGES_MAX, RequestBody, SamplingRequest
from .response_models import ResponseBody


def _as_schema(value: Any) -> Any:
    """A format as a JSON schema; "" is none."""
    if value in ("", "json"):
        return JSON_OBJECT if value else None
    if value is not None and not isinstance(value, dict):
        raise PydanticCustomError("format", 'Input should be "json" or a JSON schema')
    return value


OllamaFormat = Annotated[
    Schema | None,
    BeforeValidator(_as_schema, json_schema_input_type=Literal["", "json"] | dict[str, Any] | None),
]
ModelName = Annotated[Name, Field(min_length=1)]


class OllamaOptions(SamplingRequest):
    """Options of a request."""

    num_predict: Annotated[int, Field(ge=-2), WHOLE] | None = Field(
        None, description="Maximum tokens of the answer; as many as the server allows if not above 0."
    )
    num_ctx: Count | None = Field(
        None, description="At most the server's context, which is used in any case."
    )
    stop: Nullable[StopTexts] = Field(
        [], description="Strings that end the answer; they are not included in it."
    )


class OllamaRequest(RequestBody):
    """Fields of both requests that generate text."""

    model: ModelName
    stream: Nullable[bool] = True
    format: OllamaFormat = None
    options: Nullable[OllamaOptions] = OllamaOptions.model_validate({})
    keep_alive: float | Name | None = Field(None, description="Without effect: models stay loaded.")
    calculator: Nullable[bool] = Field(True, description="Complete arithmetic with exact results.")
    think: Unsupported = None


class OllamaMessage(RequestBody):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class OllamaChatRequest(OllamaRequest):
    """Body of /api/chat."""

    messages: Nullable[Annotated[list[OllamaMessage], Field(max_length=MESSAGES_MAX, fail_fast=True)]] = (
        Field([], description="Without messages, nothing is generated.")
    )


class OllamaGenerateRequest(OllamaRequest):
    """Body of /api/generate."""

    prompt: Nullable[Text] = Field("", description="Without a prompt, nothing is generated.")
    system: Text | None = None
    raw: Unsupported = None


class ShowRequest(RequestBody):
    """Body of /api/show."""

    model: ModelName
    verbose: Unsupported = None


class OllamaError(ResponseBody):
    """Response of a failed request."""

    error: str
