"""JSON schemas of request and response bodies, for validation and for the OpenAPI document.

Request schemas use only the keywords that request_body.validate() enforces.
"""

from typing import Any

from ...request import LOGPROBS_MAX, SEED_MAX, TEMPERATURE_MIN, Sampling
from ..request_limits import RequestLimits
from .request_body import Schema

MAX_TOKENS_DEFAULT = 512
CLAIM_CHARS_MAX = 4096
_MESSAGES_MAX = 1024
_PROMPTS_MAX = 16
_STOPS_MAX = 16  # each new piece of text is searched for all stop strings
_STOP_CHARS_MAX = 256
_COMPLETION_LOGPROBS_MAX = 5  # as in OpenAI's API
_DEFAULT = Sampling()


def _object(required: str, **properties: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


def _record(**properties: Schema) -> dict[str, Any]:
    """An object whose properties are all required."""
    return _object(" ".join(properties), **properties)


def _list(items: Schema, **constraints: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **constraints}


def _enum(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _optional(json_type: str, description: str = "", **keywords: Any) -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {"type": [json_type, "null"], **keywords, **described}


def _nullable(schema: Schema, **keywords: Any) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"], **keywords}


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_NULL: Schema = {"type": "null"}

_MODEL = _optional("string", "A model name from /v1/models; by default the first.")
_ONLY_0 = _optional("number", "Only 0 is supported.", minimum=0, maximum=0)
_STOP_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": _STOP_CHARS_MAX}
_STOP: Schema = {
    "anyOf": [_NULL, _STOP_TEXT, _list(_STOP_TEXT, maxItems=_STOPS_MAX)],
    "description": "Strings that end the answer; they are not included in it.",
}
_CONTENT: Schema = {"anyOf": [_TEXT, _list(_record(type=_enum("text"), text=_TEXT), maxItems=_MESSAGES_MAX)]}
_MESSAGE = _object(
    "role content",
    role=_enum("system", "developer", "user", "assistant"),
    content=_CONTENT,
    refusal=_NULL,  # part of our answers, which clients send back
)
_JSON_SCHEMA = _object(
    "name schema",
    name={"type": "string", "minLength": 1, "maxLength": 64},
    description=_optional("string"),
    schema={"type": "object"},
    strict=_optional("boolean", "The schema is always enforced."),
)
_RESPONSE_FORMAT = _nullable(
    _object("type", type=_enum("text", "json_object", "json_schema"), json_schema=_nullable(_JSON_SCHEMA)),
    description="Format of the answer; a schema that cannot be enforced is an error.",
)


def _max_tokens(limits: RequestLimits) -> Schema:
    maximum = limits.max_tokens
    return _optional("integer", minimum=1, maximum=maximum, default=min(MAX_TOKENS_DEFAULT, maximum))


def _sampling_fields(limits: RequestLimits) -> dict[str, Schema]:
    """Fields shared by both OpenAI endpoints."""
    return {
        "model": _MODEL,
        "max_tokens": _max_tokens(limits),
        "n": _optional("integer", "Number of answers.", minimum=1, maximum=limits.votes, default=1),
        "stop": _STOP,
        "temperature": _optional(
            "number",
            f"0 or at least {TEMPERATURE_MIN}. By default 0 (greedy), or 0.7 if n is above 1.",
            minimum=0,
            maximum=2,
        ),
        "top_p": _optional("number", exclusiveMinimum=0, maximum=1, default=_DEFAULT.top_p),
        "top_k": _optional(
            "integer", "0 disables top-k.", minimum=0, maximum=2**31 - 1, default=_DEFAULT.top_k
        ),
        "min_p": _optional("number", minimum=0, exclusiveMaximum=1, default=_DEFAULT.min_p),
        "seed": _optional("integer", "By default random.", minimum=0, maximum=SEED_MAX),
        "calculator": _optional("boolean", "Complete arithmetic with exact results.", default=True),
        "stream": _optional("boolean", default=False),
        "stream_options": _nullable(_object("", include_usage=_optional("boolean", default=False))),
        "presence_penalty": _ONLY_0,
        "frequency_penalty": _ONLY_0,
    }


def chat_request(limits: RequestLimits) -> Schema:
    """Request body of /v1/chat/completions."""
    common = _sampling_fields(limits)
    return _object(
        "messages",
        messages=_list(_MESSAGE, minItems=1, maxItems=_MESSAGES_MAX),
        **common,
        max_completion_tokens={**common["max_tokens"], "default": None},
        response_format=_RESPONSE_FORMAT,
        logprobs=_optional("boolean", default=False),
        top_logprobs=_optional("integer", "Requires logprobs.", minimum=0, maximum=LOGPROBS_MAX),
    )


def completion_request(limits: RequestLimits) -> Schema:
    """Request body of /v1/completions."""
    prompts = _list(_TEXT, minItems=1, maxItems=min(_PROMPTS_MAX, limits.votes))
    return _object(
        "prompt",
        prompt={"anyOf": [_TEXT, prompts]},
        **_sampling_fields(limits),
        logprobs=_optional("integer", minimum=0, maximum=_COMPLETION_LOGPROBS_MAX),
    )


def answer_request(limits: RequestLimits) -> Schema:
    """Request body of /v1/answer."""
    return _object(
        "question",
        question={"type": "string", "minLength": 1},
        system=_optional("string"),
        model=_MODEL,
        votes=_optional("integer", minimum=1, maximum=limits.votes, default=1),
        calculator=_optional("boolean", default=True),
        max_tokens=_max_tokens(limits),
        stream=_optional("boolean", default=False),
    )


CHECK_REQUEST = _record(claim={"type": "string", "maxLength": CLAIM_CHARS_MAX})

STEP = _record(expression=_TEXT, claimed=_TEXT, computed=_TEXT, ok=_FLAG)
CHECK_RESULT = _record(steps=_list(STEP), verified=_FLAG, value=_optional("string"))
ANSWER = _record(
    model=_TEXT,
    value=_optional("string"),
    verified=_FLAG,
    steps=_list(STEP),
    text=_TEXT,
    stop_reason=_enum("end", "stop", "length"),
    usage=_record(
        prompt_tokens=_COUNT, completion_tokens=_COUNT, cached_tokens=_COUNT, sampled_tokens=_COUNT
    ),
    timings=_record(
        prefill_s=_NUMBER,
        first_token_s=_NUMBER,
        decode_s=_NUMBER,
        prefill_tokens_per_s=_NUMBER,
        decode_tokens_per_s=_NUMBER,
    ),
    tally=_nullable(
        _record(asked=_COUNT, ended=_COUNT, votes={"type": "object", "additionalProperties": _COUNT})
    ),
)
USAGE = _record(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_record(cached_tokens=_COUNT),
)


def _completion(object_type: str, **content: Schema) -> dict[str, Any]:
    """Response of an OpenAI endpoint; the content is the text or the message of a choice."""
    finish = {"logprobs": _optional("object"), "finish_reason": _enum("stop", "length")}
    return _record(
        id=_TEXT,
        object=_enum(object_type),
        created=_COUNT,
        model=_TEXT,
        system_fingerprint=_TEXT,
        choices=_list(_record(index=_COUNT, **content, **finish)),
        usage=USAGE,
    )


CHAT_COMPLETION = _completion("chat.completion", message=_record(role=_TEXT, content=_TEXT, refusal=_NULL))
COMPLETION = _completion("text_completion", text=_TEXT)
MODEL = _record(id=_TEXT, object=_enum("model"), created=_COUNT, owned_by=_TEXT)
MODELS = _record(object=_enum("list"), data=_list(MODEL))
EVENT = {
    **_object("data", event=_TEXT, data=_TEXT),
    "description": "One event of the stream; its data is JSON.",
}
STATUS = _record(status=_TEXT)
ERROR = _record(error=_record(message=_TEXT, type=_TEXT, param=_optional("string"), code=_TEXT))
