"""Limits of requests, as the file of `serve --config` sets them."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import RequestError, shorten
from ...files.json_file import decode_utf8, read_bounded
from ...runtime.plan.options import QUEUE

_FILE_BYTES_MAX = 1 << 14


class RequestLimits(BaseModel):
    """Limits of requests and connections; the file of `serve --config` has these keys.

    Attributes:
        queue: waiting answers; beyond these, 429 is returned.
        body_bytes: maximum size of a request body.
        max_tokens: maximum completion tokens of one answer; see for_context().
        answers: maximum answers of one request: those that vote, choices, or prompts times choices.
        idle_s: time in seconds for which a connection without a request stays open.
        drain_s: time in seconds for running answers to finish when the server shuts down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queue: int = Field(default=QUEUE, ge=0, le=1_000_000)
    body_bytes: int = Field(default=1 << 20, ge=1)
    max_tokens: int = Field(default=1 << 20, ge=1)
    answers: int = Field(default=24, ge=1, le=64)
    idle_s: int = Field(default=30, ge=1)
    drain_s: int = Field(default=30, ge=0)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the limits from a TOML file; those that it lacks have their defaults.

        Raises:
            ThirteenError: the file is unreadable, too large, not TOML, or has an unknown key or a bad value.
        """
        text = decode_utf8(read_bounded(path, _FILE_BYTES_MAX), str(path))
        try:
            return cls.model_validate(tomllib.loads(text))
        except ValidationError as error:
            raise RequestError(f"{path}: {describe_error(error, cls)}") from None
        except (ValueError, RecursionError) as error:  # also of a number with too many digits
            raise RequestError(f"{path}: not TOML: {error}") from None

    def for_context(self, context: int) -> Self:
        """The limits with max_tokens capped at the context length."""
        return self.model_copy(update={"max_tokens": min(self.max_tokens, context)})


def describe_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error in a file's values for this model, as one sentence."""
    problem = error.errors(include_url=False)[0]
    key, value = problem["loc"][0], shorten(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not one of {', '.join(model.model_fields)}"
    return f"{key} {problem['msg'].replace('Input should', 'must')}, not {value}"
