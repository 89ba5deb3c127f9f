"""Request bodies of the HTTP API, as pydantic models.

In a field with a default, null means the default, as in OpenAI's API. Validation has a list as its context,
to which it adds the names of fields that have no effect. Without one, these fields are refused.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from secrets import randbelow
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ...runtime.prompt.thinking import MAX_TOKENS as THINKING_MAX_TOKENS
from ...runtime.request import (
    BIAS_MAX,
    LOGPROBS_MAX,
    MAX_TOKENS,
    SEED_MAX,
    TEMPERATURE_MIN,
    Sampling,
    SamplingOptions,
)
from ..access.request_limits import RequestLimits
from .request_fields import (
    EMPTY,
    WHOLE,
    AnswerEffort,
    AskedEffort,
    Count,
    FunctionName,
    Inputs,
    LogitBias,
    Name,
    Nullable,
    Prompts,
    Schema,
    StopTexts,
    Text,
    ThinkBudget,
    as_list,
    capped,
    list_or_text,
)

IGNORED_MAX = 32  # names that a response tells
CLAIM_CHARS_MAX = 4096
MESSAGES_MAX = 1024
_TURNS_MAX = MESSAGES_MAX // 2
TOOLS_MAX = 128  # as in OpenAI's API; also of the calls in a message
TOOLS_BYTES_MAX = 1 << 16  # of all tools as JSON
_COMPLETION_LOGPROBS_MAX = 5  # as in OpenAI's API
_DEFAULT = Sampling()
_MAX_TOKENS = f"Default: {MAX_TOKENS}, or {THINKING_MAX_TOKENS} for a model that thinks, with its thoughts."

ModelType = TypeVar("ModelType", bound="RequestBody")
T = TypeVar("T")

MessageList = Annotated[list[T], Field(max_length=MESSAGES_MAX, fail_fast=True)]
ToolList = Annotated[list[T], Field(max_length=TOOLS_MAX, fail_fast=True)]


def word_or(choice: type[BaseModel]) -> BeforeValidator:
    """Validator of a tool choice for which a word may stand, as its type; "" is none."""
    return BeforeValidator(
        lambda value: ({"type": value} if value else None) if isinstance(value, str) else value,
        json_schema_input_type=Literal["", "none", "auto", "required"] | choice | None,
    )


class RequestBody(BaseModel):
    """An object of a request body, without conversion between JSON's types.

    Attributes:
        refused: fields that would change the answer if they had an effect, with what to use instead.
    """

    refused: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"additionalProperties": {"enum": [False, 0, *EMPTY]}},
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        """Drop fields without effect; those that say something are noted, or refused."""
        if not isinstance(value, dict) or value.keys() <= (known := _field_names(cls)):
            return value
        for name in value:
            if name in known or value[name] in (False, *EMPTY):  # 0 == False
                continue
            if info.context is None or name in cls.refused:
                use = cls.refused.get(name, "")
                shown = name.encode("utf-8", "replace").decode()
                raise PydanticCustomError("extra_forbidden", "not supported", {"name": shown, "use": use})
            if name not in info.context and len(info.context) < IGNORED_MAX:
                info.context.append(name)
        return {name: value[name] for name in value if name in known}


@cache
def _field_names(model: type[RequestBody]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


class TextPart(RequestBody):
    """A part of a message's content; input_text and output_text are those of the Responses API."""

    type: Literal["text", "input_text", "output_text"]
    text: Text


_TextParts = MessageList[TextPart]
Content = Annotated[
    _TextParts, list_or_text("text parts", lambda text: [{"type": "text", "text": text}], Text | _TextParts)
]


def text_of(content: Sequence[TextPart] | None) -> str:
    """The parts of a message's content, joined."""
    return "".join(part.text for part in content or ())


class FunctionCall(RequestBody):
    """A function that the model has called."""

    name: Name
    arguments: Annotated[Text, Field(description="A JSON object, as text.")]


class MessageToolCall(RequestBody):
    """A call in a message of the model."""

    id: Name
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(RequestBody):
    """A message of a conversation."""

    refused = {"audio": "send text", "function_call": "send tool_calls"}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = Field(None, description="Required, except beside tool_calls.")
    tool_calls: ToolList[MessageToolCall] | None = Field(None, description="Only for the role assistant.")
    tool_call_id: Name | None = Field(None, description="Required for the role tool, and only for it.")
    reasoning_content: Text | None = Field(None, description="Without effect: it is left out.")


class TemplateVariables(RequestBody):
    """Variables of the chat template."""

    enable_thinking: bool | None = Field(None, description="Whether a model that can think does so.")


class JsonSchemaFormat(RequestBody):
    """A JSON schema for an answer."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: Text | None = None
    schema_: Schema = Field(alias="schema")
    strict: Nullable[bool] = Field(
        False, description="Whether a keyword that cannot be enforced is refused; else it is ignored."
    )


class ResponseFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchemaFormat | None = None


class FunctionDefinition(RequestBody):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: Schema | None = Field(None, description="A JSON schema; by default no parameters.")
    strict: Nullable[bool] = Field(
        False, description="Whether the schema is enforced where a call is optional."
    )


class Tool(RequestBody):
    """A tool of a request: a function of the client."""

    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(RequestBody):
    """The name of a function to call."""

    name: FunctionName


class ToolChoice(RequestBody):
    """Whether the model may or must call a function, and which."""

    type: Literal["none", "auto", "required", "function"]
    function: ChosenFunction | None = None


class StreamOptions(RequestBody):
    """Options of a stream."""

    include_usage: Nullable[bool] = False


class SamplingRequest(RequestBody):
    """Fields of all requests that choose how to sample."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None,
        description=f"0 or at least {TEMPERATURE_MIN}. By default 0 (greedy), or 0.7 for several answers.",
    )
    top_p: Nullable[Annotated[float, Field(ge=0, le=1)]] = _DEFAULT.top_p
    top_k: Nullable[Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]] = Field(
        _DEFAULT.top_k, description="0 disables top-k."
    )
    min_p: Nullable[Annotated[float, Field(ge=0, lt=1)]] = _DEFAULT.min_p
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE] | None = Field(
        None, description="By default, and at -1, random."
    )
    presence_penalty: Nullable[Annotated[float, Field(ge=-2, le=2)]] = 0.0
    frequency_penalty: Nullable[Annotated[float, Field(ge=-2, le=2)]] = 0.0
    repeat_penalty: Nullable[Annotated[float, Field(ge=0.01, le=BIAS_MAX)]] = 1.0
    repeat_last_n: Nullable[Annotated[int, Field(ge=-1, le=2**31 - 1), WHOLE]] = Field(
        -1, description="Last tokens of the answer that penalties look at; -1 for all."
    )
    logit_bias: Nullable[LogitBias] = {}

    def new_sampling(self) -> Sampling:
        """The engine's sampling parameters."""
        fields = {name: getattr(self, name) for name in SamplingOptions.__annotations__}
        fields |= {
            "temperature": self.temperature or 0.0,
            "top_p": self.top_p or 1e-9,  # the likeliest token remains
            "seed": randbelow(SEED_MAX + 1) if self.seed in {None, -1} else self.seed % (SEED_MAX + 1),
            "logit_bias": {int(token): bias for token, bias in self.logit_bias.items()},
        }
        return Sampling(**fields)


class GenerationRequest(SamplingRequest):
    """Fields of all requests that generate text, but for Ollama's."""

    model: Name | None = Field(None, description="A model name from /v1/models; by default the first.")
    calculator: Nullable[bool] = Field(True, description="Complete arithmetic with exact results.")
    stream: Nullable[bool] = False


class OpenAiRequest(GenerationRequest):
    """Fields of both OpenAI endpoints."""

    max_tokens: Count | None = Field(None, description=_MAX_TOKENS)
    n: Nullable[Count] = Field(1, description="Number of answers.")
    stop: Nullable[StopTexts] = Field(
        [], description="Strings that end the answer; they are not included in it."
    )
    stream_options: StreamOptions | None = None


class ChatRequest(OpenAiRequest):
    """Body of /v1/chat/completions."""

    refused = {
        "functions": "use tools",
        "function_call": "use tool_choice",
        "audio": "answers are text",
        "web_search_options": "give a function that searches as a tool",
    }

    messages: Annotated[MessageList[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = Field(None, description="Takes precedence over max_tokens.")
    response_format: ResponseFormat | None = Field(
        None, description="Format of the answer; a schema that cannot be enforced is an error."
    )
    tools: Nullable[ToolList[Tool]] = Field([])
    tool_choice: Annotated[ToolChoice | None, word_or(ToolChoice)] = Field(
        None, description="By default auto."
    )
    parallel_tool_calls: bool | None = Field(None, description="Whether an answer may have several calls.")
    reasoning_effort: Nullable[AnswerEffort] = AskedEffort.LOW
    chat_template_kwargs: Nullable[TemplateVariables] = TemplateVariables.model_validate({})
    think_budget: ThinkBudget = None
    logprobs: Nullable[bool] = False
    top_logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX), WHOLE] | None = Field(
        None, description="Requires logprobs."
    )

    @property
    def think(self) -> bool | None:
        """Whether the model is to think, by either field."""
        switch = self.chat_template_kwargs.enable_thinking
        return self.reasoning_effort.think if switch is None else switch


class CompletionRequest(OpenAiRequest):
    """Body of /v1/completions."""

    refused = {"suffix": "write it into the prompt as the model expects it", "best_of": "use n"}

    prompt: Prompts
    max_tokens: Nullable[Annotated[int, Field(ge=0), WHOLE]] = Field(
        MAX_TOKENS, description="0 requires echo."
    )
    echo: Nullable[bool] = Field(
        False, description="Begin the answer with the prompt, and its log-probabilities with the prompt's."
    )
    logprobs: Annotated[int, Field(ge=0, le=_COMPLETION_LOGPROBS_MAX), WHOLE] | None = None

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts, each a text or tokens."""
        return as_list(self.prompt)


class EmbeddingRequest(RequestBody):
    """Body of /v1/embeddings."""

    input: Inputs
    model: Name | None = Field(None, description="A model name from /v1/models; by default the first.")
    encoding_format: Nullable[Literal["float", "base64"]] = "float"
    dimensions: Count | None = Field(
        None, description="Numbers of each vector that are kept, the first ones; its length is then 1 again."
    )
    truncate: Nullable[bool] = Field(
        False, description="Whether the end of a text that is too long is cut off; else it is refused."
    )


class EarlierTurn(RequestBody):
    """A question that was asked before, and its answer."""

    question: Text
    answer: Text


class AnswerRequest(GenerationRequest):
    """Body of /v1/answer."""

    max_tokens: Count | None = Field(None, description=_MAX_TOKENS)
    question: Annotated[Text, Field(min_length=1)]
    turns: Nullable[Annotated[list[EarlierTurn], Field(max_length=_TURNS_MAX, fail_fast=True)]] = Field(
        [],
        description="Earlier turns of the conversation; the oldest are dropped if the context has no room.",
    )
    system: Text | None = None
    effort: Nullable[AnswerEffort] = AskedEffort.LOW
    think_budget: ThinkBudget = None
    min_confidence: Nullable[Annotated[float, Field(ge=0, lt=1)]] = Field(
        0.0, description="Confidence below which there is no value, and `sure` is false."
    )


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
        "max_output_tokens": limits.max_tokens,
        "n": limits.answers,
    }
    fields: dict[str, Any] = {}
    for name in maxima.keys() & model.model_fields.keys():
        field, maximum = model.model_fields[name], maxima[name]
        default = None if field.default is None else min(field.default, maximum)
        minimum = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), 1)
        whole = capped(maximum) if name.endswith("tokens") else WHOLE
        count = Nullable[Annotated[int, Field(ge=minimum, le=maximum), whole]]
        fields[name] = (count, Field(default, description=field.description))
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)
