"""What goes over HTTP, as JSON schemas: bodies are checked by them, the OpenAPI document is made of them.

Of request bodies, the keywords are those that body.py reads: what stands here is enforced.
"""

from typing import Any

from ...request import LOGPROBS_MAX, SEED_MAX, Sampling
from ..request_limits import RequestLimits
from .request_body import Schema

MAX_TOKENS = 512  # of an answer whose request does not say
CLAIM_MAX = 4096  # characters of a claim of arithmetic
_MESSAGES_MAX = 1024
_PROMPTS_MAX = 16
_STOPS_MAX, _STOP_MAX = (
    16,
    256,
)  # stop strings, and the characters of one: all are looked for in each new text
_COMPLETION_LOGPROBS_MAX = 5  # as OpenAI has it
_DEFAULT = Sampling()


def _object(required: str, **properties: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


def _list(items: Schema, **rules: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **rules}


def _optional(kind: str, description: str = "", **rules: Any) -> dict[str, Any]:
    told = {"description": description} if description else {}
    return {"type": [kind, "null"], **rules, **told}


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_NOTHING: Schema = {"type": "null"}

_MODEL = _optional("string", "A name that /v1/models lists; by default the first.")
_ONLY_0 = _optional("number", "Only 0 is supported.", minimum=0, maximum=0)
_STOP: Schema = {
    "anyOf": [
        _NOTHING,
        {"type": "string", "minLength": 1, "maxLength": _STOP_MAX},
        _list({"type": "string", "minLength": 1, "maxLength": _STOP_MAX}, maxItems=_STOPS_MAX),
    ],
    "description": "Texts that end the answer and are not part of it.",
}
_CONTENT: Schema = {
    "anyOf": [
        _TEXT,
        _list(
            _object("type text", type={"type": "string", "enum": ["text"]}, text=_TEXT),
            maxItems=_MESSAGES_MAX,
        ),
    ]
}
_MESSAGE = _object(
    "role content",
    role={"type": "string", "enum": ["system", "developer", "user", "assistant"]},
    content=_CONTENT,
    refusal=_NOTHING,  # as answers have it, which clients send back
)
_RESPONSE_FORMAT: Schema = {
    **_object(
        "type",
        type={"type": "string", "enum": ["text", "json_object", "json_schema"]},
        json_schema={
            **_object(
                "name schema",
                name={"type": "string", "minLength": 1, "maxLength": 64},
                description=_optional("string"),
                schema={"type": "object"},
                strict=_optional("boolean", "A schema is always kept to."),
            ),
            "type": ["object", "null"],
        },
    ),
    "type": ["object", "null"],
    "description": "What the answer must follow; a schema that cannot be enforced is refused.",
}


def _max_tokens(bounds: RequestLimits) -> Schema:
    most = bounds.max_tokens
    return _optional("integer", minimum=1, maximum=most, default=min(MAX_TOKENS, most))


def _generation(bounds: RequestLimits) -> dict[str, Schema]:
    """The fields that chats and completions have in common."""
    return {
        "model": _MODEL,
        "max_tokens": _max_tokens(bounds),
        "n": _optional("integer", "How many answers.", minimum=1, maximum=bounds.votes, default=1),
        "stop": _STOP,
        "temperature": _optional(
            "number", "0, the default, takes the likeliest; with n above 1 it is 0.7.", minimum=0, maximum=2
        ),
        "top_p": _optional("number", exclusiveMinimum=0, maximum=1, default=_DEFAULT.top_p),
        "top_k": _optional("integer", "0 keeps all.", minimum=0, maximum=2**31 - 1, default=_DEFAULT.top_k),
        "min_p": _optional("number", minimum=0, exclusiveMaximum=1, default=_DEFAULT.min_p),
        "seed": _optional("integer", "By default another each time.", minimum=0, maximum=SEED_MAX),
        "calculator": _optional("boolean", "Whether sums get their exact results.", default=True),
        "stream": _optional("boolean", default=False),
        "stream_options": {
            **_object("", include_usage=_optional("boolean", default=False)),
            "type": ["object", "null"],
        },
        "presence_penalty": _ONLY_0,
        "frequency_penalty": _ONLY_0,
    }


def chat(bounds: RequestLimits) -> Schema:
    """The body of /v1/chat/completions."""
    common = _generation(bounds)
    return _object(
        "messages",
        messages=_list(_MESSAGE, minItems=1, maxItems=_MESSAGES_MAX),
        **common,
        max_completion_tokens={**common["max_tokens"], "default": None},
        response_format=_RESPONSE_FORMAT,
        logprobs=_optional("boolean", default=False),
        top_logprobs=_optional("integer", "With logprobs.", minimum=0, maximum=LOGPROBS_MAX),
    )


def completion(bounds: RequestLimits) -> Schema:
    """The body of /v1/completions."""
    prompts = _list(_TEXT, minItems=1, maxItems=min(_PROMPTS_MAX, bounds.votes))
    return _object(
        "prompt",
        prompt={"anyOf": [_TEXT, prompts]},
        **_generation(bounds),
        logprobs=_optional("integer", minimum=0, maximum=_COMPLETION_LOGPROBS_MAX),
    )


def question(bounds: RequestLimits) -> Schema:
    """The body of /v1/answer."""
    return _object(
        "question",
        question={"type": "string", "minLength": 1},
        system=_optional("string"),
        model=_MODEL,
        votes=_optional("integer", minimum=1, maximum=bounds.votes, default=1),
        calculator=_optional("boolean", default=True),
        max_tokens=_max_tokens(bounds),
        stream=_optional("boolean", default=False),
    )


CLAIM = _object("claim", claim={"type": "string", "maxLength": CLAIM_MAX})

STEP = _object("expression claimed computed ok", expression=_TEXT, claimed=_TEXT, computed=_TEXT, ok=_FLAG)
CHECKED = _object(
    "steps verified value", steps=_list(STEP), verified=_FLAG, value={"type": ["string", "null"]}
)
ANSWER = _object(
    "model value verified steps text stop_reason usage timings tally",
    model=_TEXT,
    value={"type": ["string", "null"]},
    verified=_FLAG,
    steps=_list(STEP),
    text=_TEXT,
    stop_reason={"type": "string", "enum": ["end", "stop", "length"]},
    usage=_object(
        "prompt_tokens completion_tokens cached_tokens sampled_tokens",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        cached_tokens=_COUNT,
        sampled_tokens=_COUNT,
    ),
    timings=_object(
        "prefill_s first_token_s decode_s prefill_tokens_per_s decode_tokens_per_s",
        prefill_s=_NUMBER,
        first_token_s=_NUMBER,
        decode_s=_NUMBER,
        prefill_tokens_per_s=_NUMBER,
        decode_tokens_per_s=_NUMBER,
    ),
    tally={
        **_object(
            "asked ended votes",
            asked=_COUNT,
            ended=_COUNT,
            votes={"type": "object", "additionalProperties": _COUNT},
        ),
        "type": ["object", "null"],
    },
)
USAGE = _object(
    "prompt_tokens completion_tokens total_tokens prompt_tokens_details",
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_object("cached_tokens", cached_tokens=_COUNT),
)
_FINISH: Schema = {"type": "string", "enum": ["stop", "length"]}
_LOGPROBS: Schema = {"type": ["object", "null"]}
CHAT_COMPLETION = _object(
    "id object created model system_fingerprint choices usage",
    id=_TEXT,
    object={"type": "string", "enum": ["chat.completion"]},
    created=_COUNT,
    model=_TEXT,
    system_fingerprint=_TEXT,
    choices=_list(
        _object(
            "index message logprobs finish_reason",
            index=_COUNT,
            message=_object("role content refusal", role=_TEXT, content=_TEXT, refusal=_NOTHING),
            logprobs=_LOGPROBS,
            finish_reason=_FINISH,
        )
    ),
    usage=USAGE,
)
COMPLETION = _object(
    "id object created model system_fingerprint choices usage",
    id=_TEXT,
    object={"type": "string", "enum": ["text_completion"]},
    created=_COUNT,
    model=_TEXT,
    system_fingerprint=_TEXT,
    choices=_list(
        _object(
            "index text logprobs finish_reason",
            index=_COUNT,
            text=_TEXT,
            logprobs=_LOGPROBS,
            finish_reason=_FINISH,
        )
    ),
    usage=USAGE,
)
MODEL = _object(
    "id object created owned_by",
    id=_TEXT,
    object={"type": "string", "enum": ["model"]},
    created=_COUNT,
    owned_by=_TEXT,
)
MODELS = _object("object data", object={"type": "string", "enum": ["list"]}, data=_list(MODEL))
EVENT = {
    **_object("data", event=_TEXT, data=_TEXT),
    "description": "Each event of the stream; its data is JSON.",
}
STATE = _object("status", status=_TEXT)
ERROR = _object(
    "error",
    error=_object(
        "message type param code",
        message=_TEXT,
        type=_TEXT,
        param={"type": ["string", "null"]},
        code=_TEXT,
    ),
)
