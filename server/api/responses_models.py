"""Bodies of OpenAI's Responses API: requests, stored responses and their parts."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .request_fields import Count, Name, Nullable, Schema, Text, list_or_text
from .request_models import MESSAGES_MAX, RequestBody, SamplingRequest
from .response_models import Count as Total
from .response_models import ResponseBody


class InputTextPart(RequestBody):
    """A part of a message's content; output_text is a part of our answers, which clients send back."""

    type: Literal["input_text", "output_text"]
    text: Text


InputTextParts = Annotated[list[InputTextPart], Field(max_length=MESSAGES_MAX, fail_fast=True)]


class InputMessage(RequestBody):
    """A message of the input; `id` and `status` are those of our answers."""

    type: Nullable[Literal["message"]] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        InputTextParts,
        list_or_text("text parts", lambda text: {"type": "input_text", "text": text}, Text | InputTextParts),
    ]
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    @property
    def text(self) -> str:
        """The content's parts, joined."""
        return "".join(part.text for part in self.content)


InputMessages = Annotated[list[InputMessage], Field(min_length=1, max_length=MESSAGES_MAX, fail_fast=True)]


class TextFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    description: Text | None = None
    schema_: Schema | None = Field(None, alias="schema", description="Required for json_schema.")
    strict: bool | None = Field(None, description="The schema is always enforced.")


class TextConfig(RequestBody):
    """Configuration of an answer's text."""

    format: Nullable[TextFormat] = TextFormat.model_validate({"type": "text"})


class ResponseRequest(SamplingRequest):
    """Body of /v1/responses."""

    input: Annotated[
        InputMessages,
        list_or_text("messages", lambda text: {"role": "user", "content": text}, Text | InputMessages),
    ]
    model: Name | None = Field(None, description="A model name from /v1/models; by default the first.")
    instructions: Text | None = Field(None, description="System prompt; not carried over to the next turn.")
    max_output_tokens: Count | None = None
    previous_response_id: Name | None = Field(
        None, description="A stored response, whose conversation the input continues."
    )
    store: Nullable[bool] = Field(
        True, description="Whether to keep the response, in the server's memory, until others need its place."
    )
    stream: Nullable[bool] = False
    text: Nullable[TextConfig] = TextConfig()
    calculator: Nullable[bool] = Field(True, description="Complete arithmetic with exact results.")
    truncation: Nullable[Literal["disabled"]] = "disabled"


class OutputText(ResponseBody):
    """The text of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(ResponseBody):
    """An answer."""

    type: Literal["message"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class InputTokensDetails(ResponseBody):
    """Details of the input tokens."""

    cached_tokens: Total


class OutputTokensDetails(ResponseBody):
    """Details of the output tokens."""

    reasoning_tokens: Total


class ResponseUsage(ResponseBody):
    """Token counts of a response."""

    input_tokens: Total
    input_tokens_details: InputTokensDetails
    output_tokens: Total
    output_tokens_details: OutputTokensDetails
    total_tokens: Total


class IncompleteDetails(ResponseBody):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(ResponseBody):
    """Why a response failed."""

    code: Literal["server_error"]
    message: str


class ResponseText(ResponseBody):
    """The configuration of the text, as in the request."""

    format: dict[str, Any]


class ResponseObject(ResponseBody):
    """Response of /v1/responses."""

    id: str
    object: Literal["response"]
    created_at: Total
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float
    text: ResponseText
    tool_choice: Literal["none"]
    tools: list[Any]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None


class DeletedResponse(ResponseBody):
    """Response of DELETE /v1/responses/{response_id}."""

    id: str
    object: Literal["response.deleted"]
    deleted: bool
