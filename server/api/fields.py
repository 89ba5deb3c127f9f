"""Fields that several formats share: texts, efforts, sampling, tools."""

import json
from collections.abc import Sequence
from secrets import randbelow
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ...runtime.effort import Effort
from ...runtime.options import BIAS_MAX, SEED_MAX, Options
from .bodies import RequestBody

_INT_MAX = 2**31 - 1
_DEFAULT = Options()

Json = dict[str, Any]
T = TypeVar("T")


def _finite(schema: Json) -> Json:
    """Check that JSON can hold it: the parser takes 1e999 for infinity."""
    try:
        json.dumps(schema, allow_nan=False)
    except ValueError:
        raise PydanticCustomError("finite", "must have only finite numbers") from None
    return schema


def _several(value: Any) -> Any:
    """A list of texts, for which a single text, or the tokens of one, may stand."""
    single = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int))
    return [value] if single else value


Schema = Annotated[Json, AfterValidator(_finite)]

# Validation of a list ends at its first error, because a body has room for hundreds of thousands.
MessageList = Annotated[list[T], Field(max_length=1024, fail_fast=True)]
ToolList = Annotated[list[T], Field(max_length=128, fail_fast=True)]  # as in OpenAI's API
Count = Annotated[int, Field(ge=1)]
Tokens = Annotated[
    list[Annotated[int, Field(ge=0, le=_INT_MAX)]], Field(min_length=1, max_length=1 << 20, fail_fast=True)
]
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


class FunctionDefinition(RequestBody):
    """A function that the model may call."""

    name: FunctionName
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
