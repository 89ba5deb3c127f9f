"""Request bodies of OpenAI's Responses API."""

from typing import Annotated, Literal

from pydantic import Field

from .request_fields import Count, Name, Nullable, Schema, Text, list_or_text
from .request_models import MESSAGES_MAX, Content, RequestBody, SamplingRequest


class InputMessage(RequestBody):
    """A message of the input; `id` and `status` are those of our answers."""

    type: Nullable[Literal["message"]] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


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
