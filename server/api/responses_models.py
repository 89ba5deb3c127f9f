"""Request bodies of OpenAI's Responses API."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from .request_fields import (
    AnswerEffort,
    AskedEffort,
    Count,
    FunctionName,
    Name,
    Nullable,
    Schema,
    Text,
    ThinkBudget,
    list_or_text,
)
from .request_models import (
    ChosenFunction,
    Content,
    FunctionDefinition,
    GenerationRequest,
    MessageList,
    RequestBody,
    ToolList,
    word_or,
)


class InputItem(RequestBody):
    """An item of the input; `id` and `status` are those of our answers."""

    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class InputMessage(InputItem):
    """A message of the input."""

    type: Nullable[Literal["message"]] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class InputCall(InputItem):
    """A function that the model has called."""

    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: Annotated[Text, Field(description="A JSON object, as text.")]


class InputCallResult(InputItem):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: Name
    output: Content


class InputReasoning(InputItem):
    """How an earlier answer came about; it is left out."""

    type: Literal["reasoning"]
    summary: Nullable[MessageList[Schema]] = Field([])
    content: Nullable[MessageList[Schema]] = Field([])


def _item_type(value: Any) -> str:
    return str(value.get("type") or "message") if isinstance(value, dict) else "message"


_InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallResult, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(
        _item_type,
        custom_error_type="input_item",
        custom_error_message="Input should be a message, a function_call or its output, or reasoning",
    ),
]
InputItems = Annotated[MessageList[_InputItem], Field(min_length=1)]


class FunctionTool(FunctionDefinition):
    """A tool of a request: a function of the client."""

    type: Literal["function"]

    @property
    def function(self) -> FunctionDefinition:
        """The function."""
        return self


class FunctionChoice(RequestBody):
    """Whether the model may or must call a function, and which."""

    type: Literal["none", "auto", "required", "function"]
    name: FunctionName | None = None

    @property
    def function(self) -> ChosenFunction | None:
        """The function that it must call, if one is named."""
        return None if self.name is None else ChosenFunction(name=self.name)


class TextFormat(RequestBody):
    """Format of an answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    description: Text | None = None
    schema_: Schema | None = Field(None, alias="schema", description="Required for json_schema.")
    strict: bool | None = Field(
        None, description="Whether a keyword that cannot be enforced is refused; else it is ignored."
    )


class TextConfig(RequestBody):
    """Configuration of an answer's text."""

    format: Nullable[TextFormat] = TextFormat.model_validate({"type": "text"})


class ReasoningConfig(RequestBody):
    """How much is computed for an answer."""

    effort: Nullable[AnswerEffort] = AskedEffort.LOW
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="Without effect: how many answers agree is always told."
    )


class ResponseRequest(GenerationRequest):
    """Body of /v1/responses."""

    refused: ClassVar = {
        "background": "use stream",
        "conversation": "use previous_response_id",
        "max_tokens": "use max_output_tokens",
        "prompt": "use instructions and input",
        "response_format": "use text.format",
        **dict.fromkeys(("n", "stop", "top_logprobs"), "use /v1/chat/completions"),
    }

    input: Annotated[
        InputItems,
        list_or_text("messages", lambda text: [{"role": "user", "content": text}], Text | InputItems),
    ]
    tools: Nullable[ToolList[FunctionTool]] = Field([])
    tool_choice: Annotated[FunctionChoice | None, word_or(FunctionChoice)] = Field(
        None, description="By default auto."
    )
    parallel_tool_calls: bool | None = Field(None, description="Whether an answer may have several calls.")
    instructions: Text | None = Field(None, description="System prompt; not carried over to the next turn.")
    max_output_tokens: Count | None = None
    previous_response_id: Name | None = Field(
        None, description="A stored response, whose conversation the input continues."
    )
    store: Nullable[bool] = Field(
        True, description="Whether to keep the response, in the server's memory, until others need its place."
    )
    text: Nullable[TextConfig] = TextConfig()
    reasoning: Nullable[ReasoningConfig] = ReasoningConfig.model_validate({})
    think_budget: ThinkBudget = None
    truncation: Nullable[Literal["disabled"]] = "disabled"
