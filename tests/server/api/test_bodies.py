"""Request bodies: one line names the field, whatever is wrong and however often; their OpenAPI document."""

import json
from typing import Any, get_type_hints

import jsonschema
import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from thirteen.runtime.options import SEED_MAX
from thirteen.server.api.openai import ChatRequest, CompletionRequest
from thirteen.server.api.responses import ResponseRequest
from thirteen.server.app import GETS, POSTS

from .formats import FORMATS

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json"}
HI = [{"role": "user", "content": "a"}]
CALL = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def post(server, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with server.http() as http:
        return http.post(path, content=content, headers=HEADERS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": True}, "n must be a valid integer"),
        ({"n": 1.5}, "n must be a valid integer"),
        ({"n": 0}, "n must be greater than or equal to 1"),
        ({"n": 10**4000}, "n must be less than or equal to 24"),
        ({"temperature": False}, "temperature must be a valid number"),
        ({"temperature": 10**400}, "temperature must be a valid number"),
        ({"stream": "true"}, "stream must be a valid boolean"),
        ({"stream_options": []}, "stream_options must be an object"),
        ({"stop": {"a": 1}}, "stop must be a valid list"),
        ({"stop": ["a", ""]}, "stop[1] must have at least 1 character"),
        ({"stop": ["a"] * 17}, "stop must have at most 16 items, not 17"),
        ({"prompt": ["a", 1]}, "prompt[1] must be a valid string or a valid list"),
        ({"prompt": [[97], [True]]}, "prompt[1][0] must be a valid integer"),
        ({"prompt": [-1]}, "prompt[0] must be greater than or equal to 0"),
        ({"prompt": [[97]] * 17}, "prompt must have at most 16 items, not 17"),
        ({"prompt": None}, "prompt is missing"),
        ({"suffix": "b"}, "suffix is not supported: write it into the prompt as the model expects it"),
        ({"top_p": -1}, "top_p must be greater than or equal to 0"),
        ({"seed": 2**63}, "seed must be less than 9223372036854775808"),
        ({"logit_bias": {"97": 101}}, "logit_bias.97 must be less than or equal to 100"),
    ],
)
def test_completion(tiny_server, fields, message):
    response = post(tiny_server, COMPLETION, {"prompt": "a"} | fields)
    error = response.json()["error"]
    assert (response.status_code, error["message"]) == (422, message)
    assert message.startswith(error["param"]) and error["type"] == "invalid_request_error"
    supported = "is not supported" not in message
    assert error["code"] == ("invalid_value" if supported else "unsupported_parameter")


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [
        (b'{"n": 1' + b"0" * 5000 + b"}", 400, "the body is not JSON: number out of range"),
        (b"[" * 100_000, 400, "the body is not JSON: recursion limit exceeded"),
        (b'{"n": NaN}', 400, "the body is not JSON: expected value at line 1 column 7"),
        (b'{"prompt": "\\ud800"}', 400, "the body is not JSON: "),
        (b'{"\\udfff": 1}', 400, "the body is not JSON: lone leading surrogate"),
        (b"{\xff}", 400, "the body is not JSON: key must be a string at line 1 column 2"),
        (b"{", 400, "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        (b"[]", 422, "the body must be an object"),
        (b'{"prompt": "a", "top_p": -1e999}', 422, "top_p must be a finite number"),
    ],
)
def test_what_is_no_json(tiny_server, content, status, problem):
    response = post(tiny_server, COMPLETION, content)
    assert response.status_code == status and response.json()["error"]["message"].startswith(problem)


ECHO = {"echo": True, "max_tokens": 0}
TEXT, SCHEMA_FORMAT = {"type": "text", "text": "a"}, {"type": "json_schema"}
NOTHING = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "any"}}}
NAMED = {"type": "function", "function": {"name": "unknown"}}
NOW = {"type": "function", "function": {"name": "now"}}


def said(**fields):
    return {"messages": [*HI, {"role": "user", "content": "a"} | fields]}


def asked(**fields):
    return {"messages": HI, **fields}


def written(**fields):
    return {"input": "a", "text": {"format": SCHEMA_FORMAT | fields}}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT, {"messages": ["a"]}, 422, "messages[0]"),
        (CHAT, said(role="robot"), 422, "messages[1].role"),
        (CHAT, said(content=5), 422, "messages[1].content"),
        (CHAT, said(content=["a"]), 422, "messages[1].content[0]"),
        (CHAT, said(content=[TEXT | {"type": "image_url"}]), 422, "messages[1].content[0].type"),
        (CHAT, said(audio="b"), 422, "messages[1].audio"),
        (CHAT, said(role="tool"), 400, "messages[1].tool_call_id"),
        (CHAT, said(tool_call_id="1"), 400, "messages[1].tool_call_id"),
        (CHAT, said(tool_calls=[CALL]), 400, "messages[1].tool_calls"),
        (CHAT, said(role="assistant", content=None), 400, "messages[1].content"),
        *(
            (
                CHAT,
                said(role="assistant", tool_calls=[CALL | {"function": {"name": "now", "arguments": text}}]),
                400,
                "messages[1].tool_calls[0].function.arguments",
            )
            for text in ("", "{", "[]", "1", "[" * 5000)
        ),
        (CHAT, asked(functions=[{"name": "f"}]), 422, "functions"),
        (CHAT, asked(top_logprobs=2), 400, "top_logprobs"),
        (
            CHAT,
            asked(reasoning_effort="medium", logprobs=True, messages=said(content="1")["messages"]),
            400,
            None,
        ),
        (CHAT, asked(reasoning_effort="medium", n=2, messages=said(content="1")["messages"]), 400, "n"),
        (CHAT, asked(response_format=SCHEMA_FORMAT), 400, "response_format.json_schema"),
        (CHAT, asked(response_format=NOTHING), 400, None),
        (CHAT, asked(tool_choice="required"), 400, "tool_choice"),
        (CHAT, asked(tool_choice="sometimes"), 422, "tool_choice"),
        (CHAT, asked(tool_choice={"type": "function"}, tools=[NOW]), 422, "tool_choice.function"),
        (CHAT, asked(tools=[NOW] * 129), 422, "tools"),
        ("/v1/answer", {}, 422, "question"),
        ("/v1/answer", {"question": "x", "think_budget": -1}, 422, "think_budget"),
        ("/v1/answer", {"question": "x", "min_confidence": 1}, 422, "min_confidence"),
        ("/v1/check", {"claim": "1" * 4097}, 422, "claim"),
        ("/v1/responses", written(name="x"), 400, "text.format.schema"),
        ("/v1/responses", written(schema={}), 400, "text.format.name"),
        ("/v1/responses", {"input": []}, 422, "input"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{}]}]}, 422, "input[0].content[0].type"),
        ("/v1/responses", {"input": "a", "background": True}, 422, "background"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "1"}]}, 422, "input[0].type"),
        ("/v1/responses", {"input": [{"type": "function_call", "call_id": "1"}]}, 422, "input[0].name"),
        ("/v1/responses", {"input": "a", "truncation": "auto"}, 422, "truncation"),
        ("/v1/responses", {"input": "a", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
        (COMPLETION, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        (COMPLETION, ECHO | {"prompt": "a", "stream": True}, 400, "max_tokens"),
        (COMPLETION, {"prompt": ["a"] * 16, "n": 2}, 400, "n"),
        (COMPLETION, ECHO | {"prompt": [1, 9999]}, 400, None),
        (COMPLETION, ECHO | {"prompt": "a" * 300, "logprobs": 0}, 400, None),
    ],
)
def test_error_names_the_field(tiny_server, path, body, status, param):
    response = post(tiny_server, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param) and "\n" not in error["message"]


def test_a_function_that_is_chosen_must_be_there(tool_server):
    for path, body in (
        (CHAT, asked(tools=[NOW], tool_choice=NAMED)),
        (
            "/v1/responses",
            {
                "input": "a",
                "tools": [{"type": "function", "name": "now"}],
                "tool_choice": {"type": "function", "name": "unknown"},
            },
        ),
    ):
        response = post(tool_server, path, body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"format": 5}, 422, "format must be '' or 'json' or an object"),
        ({"keep_alive": {"a": 1}}, 422, "keep_alive must be a valid number or a valid string"),
        ({"messages": [{"role": "robot", "content": "a"}]}, 422, "messages[0].role must be"),
        ({"temperature": 1}, 422, "temperature is not supported: put it into options"),
        ({"options": {"temperature": "1"}}, 422, "options.temperature must be a valid number"),
        ({"model": ""}, 422, "model must have at least 1 character"),
    ],
)
def test_errors_of_ollama(tiny_server, body, status, message):
    response = post(tiny_server, "/api/chat", {"model": "tiny", "messages": HI} | body)
    assert response.status_code == status and response.json().keys() == {"error"}
    assert response.json()["error"].startswith(message)
    assert post(tiny_server, "/api/pull", {"model": "tiny"}).json().keys() == {"error"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETION, {"prompt": 1} | {f"{number}": 0 for number in range(70_000)}),
        (COMPLETION, {f"{number}": "" for number in range(70_000)}),
        (COMPLETION, {"prompt": ["", *[0] * 300_000]}),
        (COMPLETION, {"prompt": [0, *[""] * 200_000]}),
        (CHAT, {"messages": [{"role": "user", "content": [{}] * 200} for _ in range(1000)]}),
        (CHAT, {"messages": [{}] * 200_000}),
    ],
    ids=["unknown fields", "empty fields", "prompts", "tokens", "parts", "messages"],
)
def test_a_body_full_of_errors_is_refused_at_the_first(tiny_server, path, body):
    """An error for each of them took a second, in which the server answered nobody."""
    assert len(json.dumps(body)) < 1 << 20
    response = post(tiny_server, path, body)
    assert response.status_code == 422 and len(response.text) < 200


def test_null_is_the_default_and_whole_numbers_are_integers(tiny_server):
    fields = dict.fromkeys(
        ["model", "stop", "top_k", "top_p", "seed", "calculator", "stream", "n", "logprobs"]
    )
    fields |= {"presence_penalty": 0, "frequency_penalty": 0.0, "max_tokens": 2.0}
    response = post(tiny_server, COMPLETION, {"prompt": "a", **fields})
    assert response.status_code == 200 and response.json()["usage"]["completion_tokens"] <= 2
    chat = {"messages": HI, "max_tokens": 1, "stop": "", "tool_choice": "", "response_format": {}}
    body = {"input": "a", "max_output_tokens": 1, "tool_choice": "", "previous_response_id": ""}
    body |= {"reasoning": {"effort": ""}, "text": {"format": {}}}
    for path, empty in ((CHAT, chat | {"reasoning_effort": ""}), ("/v1/responses", body)):
        answer = post(tiny_server, path, empty)
        assert answer.status_code == 200 and "X-Thirteen-Ignored" not in answer.headers, answer.text


def test_a_default_above_the_limit_is_no_field_without_effect(tiny_server):
    response = post(tiny_server, COMPLETION, {"prompt": "a"})
    assert response.status_code == 200 and "X-Thirteen-Ignored" not in response.headers


def test_names_that_are_repeated_are_told_once(tiny_server):
    body = {"messages": [HI[0] | {"name": "b"}] * 40, "max_tokens": 1, "stream_options": {"user": 1}}
    response = post(tiny_server, CHAT, body)
    assert set(response.headers["X-Thirteen-Ignored"].split(", ")) == {"name", "user"}


def test_seeds_and_top_p_of_openai_are_taken(tiny_server):
    """Seeds are signed and have 64 bits, as Date.now() in JavaScript; -1 is Ollama's default."""
    seeds = (-(2**63), 2**63 - 1, 1732900000000)
    requests = [CompletionRequest.model_validate({"prompt": "a", "seed": seed}) for seed in seeds]
    assert [one.sampling["seed"] for one in requests] == [seed % (SEED_MAX + 1) for seed in seeds]
    body = {"prompt": "a", "seed": -1, "top_p": 0, "temperature": 1, "max_tokens": 4}
    first, second = (post(tiny_server, COMPLETION, body).json()["choices"][0]["text"] for _ in range(2))
    assert first == second  # only the likeliest token is left


# The client's type, ours, and what a request needs.
APIS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    CHAT: (
        chat_create_params.CompletionCreateParamsStreaming,
        ChatRequest,
        {"messages": HI, "max_tokens": 1},
    ),
    COMPLETION: (
        completion_create_params.CompletionCreateParamsStreaming,
        CompletionRequest,
        {"prompt": "a", "max_tokens": 1},
    ),
    "/v1/responses": (
        response_create_params.ResponseCreateParamsStreaming,
        ResponseRequest,
        {"input": "a", "max_output_tokens": 1},
    ),
}
VALUES: dict[str, Any] = {
    **{"model": "tiny", "n": 2, "seed": 1, "top_p": 0.5, "temperature": 0.5, "stop": "a", "stream": True},
    **{"presence_penalty": 0.5, "frequency_penalty": 1, "logprobs": 1, "top_logprobs": 1, "echo": True},
    **{"logit_bias": {"97": -100, "98": 5.5}, "previous_response_id": "", "max_completion_tokens": 1},
    **{"parallel_tool_calls": True, "tool_choice": "auto", "response_format": {"type": "json_object"}},
    **{"reasoning_effort": "high", "reasoning": {"effort": "high", "summary": "auto"}},
    **{"stream_options": {"include_usage": True}, "tools": [NOW]},
    **{"instructions": "a", "truncation": "disabled", "text": {"format": {"type": "text"}}},
}


@pytest.mark.parametrize("path", APIS)
def test_every_field_of_openais_client_is_honoured_or_ignored_or_refused_by_name(tool_server, path):
    params, ours, base = APIS[path]
    values = VALUES | base
    if path == CHAT:
        values["logprobs"], base = True, base | {"logprobs": True}
    if path == "/v1/responses":
        values["tools"] = [{"type": "function", "name": "a"}]
    for name in get_type_hints(params):
        honoured = name in ours.model_fields
        response = post(tool_server, path, base | {name: values[name] if honoured else "a"})
        if honoured or name not in ours.refused:
            assert response.status_code == 200, (name, response.text)
            assert response.headers.get("X-Thirteen-Ignored") == (None if honoured else name)
        else:
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (422, name)
            assert error["message"].endswith(f"not supported: {ours.refused[name]}")


def test_the_openapi_document_describes_every_operation_and_body(tiny_server):
    with tiny_server.http() as http:
        document = http.get("/openapi.json").json()
    assert len(document["paths"]) == len(GETS) + len(POSTS)
    messages = [{"role": "user", "content": "a"}]
    for form in FORMATS.values():
        reference = document["paths"][form.path]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        schema = reference | {"components": document["components"]}
        jsonschema.validate(
            form.body(messages, {"effort": "high", "temperature": 0.5, "max_tokens": 1}), schema
        )
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(form.body(messages, {"effort": "much"}), schema)
    assert document["components"]["schemas"]["AnswerRequest"]["additionalProperties"] is False
