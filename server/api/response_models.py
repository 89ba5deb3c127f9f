"""Response bodies of the HTTP API, as pydantic models for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ...runtime.answer import VoteTally
from ...runtime.arithmetic.calculator import Step
from ...runtime.request import Usage

Count = Annotated[int, Field(ge=0)]


class ResponseBody(BaseModel):
    """An object of a response: exactly these fields."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class CheckResult(ResponseBody):
    """Response of /v1/check."""

    steps: list[Step]
    verified: bool
    value: str | None


class AnswerTimings(ResponseBody):
    """Latencies in seconds, and token rates."""

    prefill_s: float
    first_token_s: float
    decode_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class AnswerResponse(ResponseBody):
    """Response of /v1/answer."""

    model: str
    value: str | None
    verified: bool
    steps: list[Step]
    text: str
    stop_reason: Literal["end", "stop", "length"]
    usage: Usage
    timings: AnswerTimings
    tally: VoteTally | None
    dropped_turns: Count = Field(description="Oldest turns for which the context had no room.")
    foreign_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Share of the question's letters in a script that the file's vocabulary was trimmed of; "
        "null for a file with its full vocabulary."
    )


class PromptTokensDetails(ResponseBody):
    """Details of the prompt tokens."""

    cached_tokens: Count


class CompletionUsage(ResponseBody):
    """Token counts of both OpenAI endpoints."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails


class AssistantMessage(ResponseBody):
    """The message of an answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class CalledFunction(ResponseBody):
    """A function that an answer calls; the arguments are a JSON object, as text."""

    name: str
    arguments: str


class ToolCall(ResponseBody):
    """A call in an answer."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ToolCallMessage(ResponseBody):
    """The message of an answer that calls functions."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall]


class Choice(ResponseBody):
    """An answer of both OpenAI endpoints."""

    index: Count
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatChoice(Choice):
    """An answer of /v1/chat/completions."""

    message: AssistantMessage | ToolCallMessage


class CompletionChoice(Choice):
    """An answer of /v1/completions."""

    text: str


class OpenAiResponse(ResponseBody):
    """Fields of both OpenAI endpoints."""

    id: str
    created: Count
    model: str
    system_fingerprint: str
    usage: CompletionUsage


class ChatCompletion(OpenAiResponse):
    """Response of /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Completion(OpenAiResponse):
    """Response of /v1/completions."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class Model(ResponseBody):
    """Response of /v1/models/{model}."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str


class ModelList(ResponseBody):
    """Response of /v1/models."""

    object: Literal["list"]
    data: list[Model]


class StreamEvent(BaseModel):
    """One event of a stream; its data is JSON."""

    event: str = ""
    data: str


class Status(ResponseBody):
    """Response of /health and /ready."""

    status: str


class ErrorDetail(ResponseBody):
    """An error, as OpenAI's API describes it."""

    message: str
    type: str
    param: str | None
    code: str


class Error(ResponseBody):
    """Response of a failed request."""

    error: ErrorDetail


class JsonObject(RootModel[dict[str, Any]]):
    """Any JSON object."""
