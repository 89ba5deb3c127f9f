"""Bodies of Ollama's API: requests and errors."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .request_fields import (
    JSON_OBJECT,
    WHOLE,
    AnswerEffort,
    AskedEffort,
    Count,
    Name,
    Nullable,
    OllamaInputs,
    Schema,
    StopTexts,
    Text,
    ThinkBudget,
)
from .request_models import MessageList, RequestBody, SamplingRequest, Tool, ToolList
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
    num_ctx: Count | None = Field(None, description="Without effect: the server's context is used.")
    repeat_last_n: Nullable[Annotated[int, Field(ge=-1, le=2**31 - 1), WHOLE]] = Field(
        64, description="Last tokens of the answer that penalties look at; -1 for all."
    )
    stop: Nullable[StopTexts] = Field(
        [], description="Strings that end the answer; they are not included in it."
    )


class ModelRequest(RequestBody):
    """Fields of all requests for which a model is loaded."""

    model: ModelName
    keep_alive: float | Name | None = Field(None, description="Without effect.")


class OllamaRequest(ModelRequest):
    """Fields of both requests that generate text."""

    refused: ClassVar = {
        **dict.fromkeys(OllamaOptions.model_fields, "put it into options"),
        **dict.fromkeys(("logprobs", "top_logprobs"), "use /v1/chat/completions"),
        **dict.fromkeys(("raw", "template", "suffix"), "send the whole prompt to /v1/completions"),
        "context": "send the messages to /api/chat",
        "images": "send text",
    }

    stream: Nullable[bool] = True
    format: OllamaFormat = None
    options: Nullable[OllamaOptions] = OllamaOptions.model_validate({})
    think: Nullable[AnswerEffort] = AskedEffort.LOW
    think_budget: ThinkBudget = None
    calculator: Nullable[bool] = Field(True, description="Complete arithmetic with exact results.")


class OllamaFunctionCall(RequestBody):
    """A function that the model has called."""

    name: Name
    arguments: Schema


class OllamaToolCall(RequestBody):
    """A call in a message of the model."""

    function: OllamaFunctionCall


class OllamaMessage(RequestBody):
    """A message of a conversation."""

    refused: ClassVar = {"images": "send text"}

    role: Literal["system", "user", "assistant", "tool"]
    content: Nullable[Text] = ""
    thinking: Text | None = Field(None, description="Without effect: it is left out.")
    tool_calls: Nullable[ToolList[OllamaToolCall]] = Field([], description="Only for the role assistant.")
    tool_name: Name | None = Field(None, description="For the role tool: whose result it is.")


class OllamaChatRequest(OllamaRequest):
    """Body of /api/chat."""

    messages: Nullable[MessageList[OllamaMessage]] = Field(
        [], description="Without messages, nothing is generated."
    )
    tools: Nullable[ToolList[Tool]] = Field([])
    tool_choice: ClassVar[None] = None
    parallel_tool_calls: ClassVar[None] = None


class OllamaGenerateRequest(OllamaRequest):
    """Body of /api/generate."""

    prompt: Nullable[Text] = Field("", description="Without a prompt, nothing is generated.")
    system: Text | None = None


class OllamaEmbedRequest(ModelRequest):
    """Body of /api/embed."""

    input: OllamaInputs
    truncate: Nullable[bool] = Field(
        True, description="Whether the end of a text that is too long is cut off."
    )
    dimensions: Count | None = Field(
        None, description="Numbers of each vector that are kept, the first ones."
    )


class OllamaEmbeddingRequest(ModelRequest):
    """Body of /api/embeddings, which came before /api/embed."""

    prompt: Text


class ShowRequest(RequestBody):
    """Body of /api/show."""

    model: ModelName


class OllamaError(ResponseBody):
    """Response of a failed request."""

    error: str
