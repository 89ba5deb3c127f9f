"""Response bodies of the project's own API, as pydantic models for the OpenAPI document.

Those of OpenAI's and Ollama's API are described by their authors.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ...runtime.answer import VoteTally
from ...runtime.arithmetic import Step
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
    verified: bool = Field(description="Whether all equations were read and hold, and one gives the value.")
    grounded: bool = Field(
        description="Whether it is verified, and every number of its equations is in the question, in an "
        "earlier turn, or the result of an earlier equation."
    )
    confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Calibrated probability that the value is right; null without a value, and where the "
        "model has no calibration for single answers."
    )
    sure: bool = Field(
        description="Whether it is at least `min_confidence`; if not, or cut off, there is no value."
    )
    steps: list[Step]
    text: str
    thinking: str = Field(description="The thought before the text; empty if the model does not think.")
    stop_reason: Literal["end", "stop", "length"]
    usage: Usage
    timings: AnswerTimings
    tally: VoteTally | None
    dropped_turns: Count = Field(description="Oldest turns for which the context had no room.")
    foreign_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Share of the question's letters in a script that the file's vocabulary was trimmed of; "
        "null for a file with its full vocabulary."
    )


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
