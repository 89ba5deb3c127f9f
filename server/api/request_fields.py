"""Types of the fields of request bodies, with their limits."""

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal, LiteralString, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticUseDefault
from pydantic_core.core_schema import no_info_before_validator_function

from ...runtime.effort import Effort
from ...runtime.request import BIAS_MAX


class AskedEffort(StrEnum):
    """An effort, or whether a model that can think does so; other models then vote instead."""

    NONE = "none"
    THINK = "think"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def think(self) -> bool | None:
        """Whether the model is to think; None leaves it to its chat template."""
        return {"none": False, "think": True}.get(self)

    def effort(self, *, thinks: bool) -> Effort:
        """The effort, for a model that can think or cannot."""
        match self:
            case AskedEffort.NONE:
                return Effort.LOW
            case AskedEffort.THINK:
                return Effort.LOW if thinks else Effort.MEDIUM
        return Effort(self)


# Efforts by OpenAI's names and by Ollama's.
_EFFORTS: dict[str | bool, AskedEffort] = {
    **dict.fromkeys(("", "minimal"), AskedEffort.LOW),
    **{effort.value: AskedEffort(effort) for effort in Effort},
    **dict.fromkeys(("none", False), AskedEffort.NONE),
    **dict.fromkeys(("xhigh", "max"), AskedEffort.HIGH),
    True: AskedEffort.THINK,
}
TEXT_CHARS_MAX = 1 << 22  # about a million tokens, more than any context
_NAME_CHARS_MAX = 1024
_PROMPTS_MAX = 16
_INPUTS_MAX = 2048  # as in OpenAI's API
_PROMPT_TOKENS_MAX = 1 << 20
_STOPS_MAX = 16  # each new piece of text is searched for all stop strings
_STOP_CHARS_MAX = 256
JSON_OBJECT = {"type": "object"}  # the schema of any object
_BIASES_MAX = 1024
EMPTY: tuple[Any, ...] = (None, "", [], {})  # values that say that a field is not used, as False does

T = TypeVar("T")


def _parse_effort(value: Any) -> AskedEffort:
    if isinstance(value, str | bool) and value in _EFFORTS:
        return _EFFORTS[value]
    raise PydanticCustomError("effort", "Input should be low, medium or high")


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


def list_or_text(items: LiteralString, to_list: Callable[[str], Any], schema: Any) -> BeforeValidator:
    """Validator of a list for which a string may stand.

    `items` says what the list holds, for errors; `schema` is the type of both, for the OpenAPI document.
    """

    def as_list(value: Any) -> Any:
        if isinstance(value, str):
            return to_list(value)
        if not isinstance(value, list):
            raise PydanticCustomError("string_or_list", f"Input should be a string or a list of {items}")
        return value

    return BeforeValidator(as_list, json_schema_input_type=schema)


def is_text(value: Any) -> bool:
    """Whether a JSON value has no half of a surrogate pair, also in its names and parts."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except RecursionError:
        pass  # refused elsewhere
    return True


def _check_text(value: dict[str, Any]) -> dict[str, Any]:
    if not is_text(value):
        raise PydanticCustomError("surrogate", "Input should have no half of a surrogate pair")
    return value


def capped(maximum: int) -> BeforeValidator:
    """Validator of an integer, lowered to a limit of the server unless requests are read strictly."""

    def cap(value: Any, info: ValidationInfo) -> Any:
        if info.context is None or type(value) not in {int, float} or not value > maximum:
            return _whole_number(value)
        info.context.append(info.field_name)
        return maximum

    return BeforeValidator(cap)


def prompt_kind(value: Any) -> str | None:
    """Which kind of prompt a value is, by its first element: text, texts, tokens or token_lists."""
    if not isinstance(value, list):
        return "text" if isinstance(value, str) else None
    first = value[0] if value else None
    if isinstance(first, list):
        return "token_lists"
    return "tokens" if isinstance(first, int | float) else "texts"


Nullable = Annotated[T, _NullIsDefault()]
WHOLE = BeforeValidator(_whole_number)
AnswerEffort = Annotated[
    AskedEffort,
    BeforeValidator(
        _parse_effort,
        json_schema_input_type=Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"] | bool,
    ),
    Field(
        description="medium and high sample up to 8 or 10 answers to a question with a number, and take the "
        "majority's; not with tools, a format, log-probabilities, or several answers. A model that can think "
        "does not with none and false; with true it does, and gives one answer."
    ),
]
Count = Annotated[int, Field(ge=1), WHOLE]
ThinkBudget = Annotated[
    Annotated[int, Field(ge=0), WHOLE] | None,
    Field(description="Tokens after which a thought is ended; 0 is no thought. At most 3/4 of max_tokens."),
]
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-BIAS_MAX, le=BIAS_MAX)]],
    Field(max_length=_BIASES_MAX, json_schema_extra={"additionalProperties": False}),
]

# A bound on the length also makes pydantic refuse half of a surrogate pair. Validation of a list ends at its
# first error, because a body has room for hundreds of thousands.
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Name = Annotated[str, Field(max_length=_NAME_CHARS_MAX)]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_StopText = Annotated[str, Field(max_length=_STOP_CHARS_MAX)]
_StopTexts = Annotated[
    list[Annotated[_StopText, Field(min_length=1)]], Field(max_length=_STOPS_MAX, fail_fast=True)
]
StopTexts = Annotated[
    _StopTexts, list_or_text("strings", lambda text: [text] if text else [], _StopText | _StopTexts)
]
Schema = Annotated[dict[str, Any], AfterValidator(_check_text)]
_Tokens = Annotated[
    list[Annotated[int, Field(ge=0, lt=1 << 31), WHOLE]],
    Field(min_length=1, max_length=_PROMPT_TOKENS_MAX, fail_fast=True),
]
_PROMPTS = Field(min_length=1, max_length=_PROMPTS_MAX, fail_fast=True)
_INPUTS = Field(min_length=1, max_length=_INPUTS_MAX, fail_fast=True)
_INPUT = Annotated[Text, Field(min_length=1)]
_BY_KIND = Discriminator(
    prompt_kind,
    custom_error_type="prompt",
    custom_error_message="Input should be a string or tokens, or a list of either",
)
Prompts = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Annotated[list[Text], _PROMPTS], Tag("texts")]
    | Annotated[_Tokens, Tag("tokens")]
    | Annotated[Annotated[list[_Tokens], _PROMPTS], Tag("token_lists")],
    _BY_KIND,
]
Inputs = Annotated[
    Annotated[_INPUT, Tag("text")]
    | Annotated[Annotated[list[_INPUT], _INPUTS], Tag("texts")]
    | Annotated[_Tokens, Tag("tokens")]
    | Annotated[Annotated[list[_Tokens], _INPUTS], Tag("token_lists")],
    _BY_KIND,
]
_Texts = Annotated[list[Text], _INPUTS]
OllamaInputs = Annotated[_Texts, list_or_text("strings", lambda text: [text], Text | _Texts)]


def as_list(value: Any) -> list[Any]:
    """Prompts as a list, each a text or tokens."""
    return [value] if prompt_kind(value) in {"text", "tokens"} else [*value]
