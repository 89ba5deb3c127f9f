"""Request bodies: one line names the field, whatever is wrong and however often; their OpenAPI document."""

import json

import jsonschema
import pytest
from thirteen.runtime.options import SEED_MAX
from thirteen.server.api.openai import CompletionRequest
from thirteen.server.app import ROUTES

from .formats import FORMATS

COMPLETION, CHAT, RESPONSES, OLLAMA = "/v1/completions", "/v1/chat/completions", "/v1/responses", "/api/chat"
HI = [{"role": "user", "content": "a"}]
BODIES = {form.path: form.body(HI, {"max_tokens": 1}) for form in FORMATS.values()}
BODIES |= {COMPLETION: {"prompt": "a", "max_tokens": 1}, "/v1/check": {}}
CALL = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def post(server, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with server.http() as http:
        return http.post(path, content=content, headers={"Content-Type": "application/json"})


TEXT, SCHEMA_FORMAT = {"type": "text", "text": "a"}, {"type": "json_schema"}
NOW, OTHER = {"type": "function", "function": {"name": "now"}}, {"name": "other"}


def said(**fields):
    return {"messages": [*HI, {"role": "user", "content": "a"} | fields]}


def arguments(text):
    return said(role="assistant", tool_calls=[CALL | {"function": {"name": "now", "arguments": text}}])


@pytest.mark.parametrize(
    ("path", "fields", "status", "problem"),
    [
        (COMPLETION, b'{"n": 1' + b"0" * 5000 + b"}", 400, "the body is not JSON: number out of range"),
        (COMPLETION, b"[" * 100_000, 400, "the body is not JSON: recursion limit exceeded"),
        (COMPLETION, b'{"n": NaN}', 400, "the body is not JSON: expected value at line 1 column 7"),
        (COMPLETION, b"{\xff}", 400, "the body is not JSON: key must be a string at line 1 column 2"),
        (COMPLETION, b'{"prompt": "a", "top_p": -1e999}', 422, "top_p must be a finite number"),
        (COMPLETION, {"n": 10**4000}, 422, "n must be at most 24, for all prompts together"),
        (COMPLETION, {"prompt": ["a"] * 16, "n": 2}, 422, "n must be at most 24"),
        (COMPLETION, {"temperature": 10**400}, 422, "temperature must be a valid number"),
        (COMPLETION, {"stream_options": []}, 422, "stream_options must be an object"),
        (COMPLETION, {"stop": {"a": 1}}, 422, "stop must be a valid list"),
        (COMPLETION, {"stop": ["a", ""]}, 422, "stop[1] must have at least 1 character"),
        (COMPLETION, {"prompt": ["a", 1]}, 422, "prompt[1] must be a valid string"),
        (COMPLETION, {"prompt": [[97], [True]]}, 422, "prompt[1][0] must be a valid integer"),
        (COMPLETION, {"prompt": [[97]] * 17}, 422, "prompt must have at most 16 items, not 17"),
        (COMPLETION, {"prompt": None}, 422, "prompt is missing"),
        (COMPLETION, {"prompt": [1, 9999], "echo": True}, 400, "token 9999"),
        (COMPLETION, {"prompt": "a" * 300, "logprobs": 0, "echo": True}, 400, "the "),
        (COMPLETION, {"seed": 2**63}, 422, "seed must be less than 9223372036854775808"),
        (COMPLETION, {"logit_bias": {"97": 101}}, 422, "logit_bias.97 must be less than or equal to 100"),
        (CHAT, {"messages": ["a"]}, 422, "messages[0] "),
        (CHAT, said(content=5), 422, "messages[1].content "),
        (CHAT, said(content=[TEXT | {"type": "image_url"}]), 422, "messages[1].content[0].type "),
        (CHAT, said(audio="b"), 422, "messages[1].audio "),
        (CHAT, said(role="tool"), 400, "messages[1].tool_call_id "),
        (CHAT, said(tool_calls=[CALL]), 400, "messages[1].tool_calls "),
        (CHAT, said(role="assistant", content=None), 400, "messages[1].content "),
        (CHAT, arguments("[]"), 400, "messages[1].tool_calls[0].function.arguments "),
        (CHAT, arguments("[" * 5000), 400, "messages[1].tool_calls[0].function.arguments "),
        (CHAT, {"top_logprobs": 2}, 400, "top_logprobs "),
        (CHAT, {"reasoning_effort": "medium", "logprobs": True} | said(content="1"), 400, "effort "),
        (CHAT, {"reasoning_effort": "medium", "n": 2} | said(content="1"), 400, "n "),
        (CHAT, {"response_format": SCHEMA_FORMAT}, 400, "response_format.json_schema "),
        (CHAT, {"tool_choice": "required"}, 400, "tool_choice "),
        (CHAT, {"tool_choice": "sometimes"}, 422, "tool_choice "),
        (CHAT, {"tools": [NOW], "tool_choice": {"type": "function", "function": OTHER}}, 400, "tool_choice "),
        (CHAT, {"tool_choice": {"type": "function"}, "tools": [NOW]}, 422, "tool_choice.function "),
        (CHAT, {"tools": [{"type": "calculator"}]}, 422, "tools[0].type "),
        (CHAT, {"tools": [NOW | {"function": {"name": "a b"}}]}, 422, "tools[0].function.name must match "),
        (OLLAMA, {"tools": [{"type": "calculator"}]}, 422, "tools[0].type "),
        (RESPONSES, {"tools": [NOW | {"name": "a b"}]}, 422, "tools[0].name must match "),
        (RESPONSES, {"tools": [NOW | OTHER], "tool_choice": NOW | {"name": "b"}}, 400, "tool_choice "),
        (RESPONSES, {"text": {"format": SCHEMA_FORMAT | {"name": "x"}}}, 400, "text.format.schema "),
        (RESPONSES, {"input": [{"role": "user", "content": [{}]}]}, 422, "input[0].content[0].type "),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "1"}]}, 422, "input[0].type "),
        (RESPONSES, {"input": [{"type": "function_call", "call_id": "1"}]}, 422, "input[0].name is missing"),
        ("/v1/answer", {"question": None}, 422, "question "),
        (RESPONSES, {"previous_response_id": "1"}, 400, "previous_response_id is not supported: send "),
        (RESPONSES, {"truncation": "auto"}, 422, "truncation "),
        ("/v1/answer", {"min_confidence": 1}, 422, "min_confidence "),
        ("/v1/check", {"claim": "1" * 4097}, 422, "claim "),
        (OLLAMA, {"format": 5}, 422, "format must be"),
        (OLLAMA, {"options": {"temperature": "1"}}, 422, "options.temperature must be"),
    ],
)
def test_an_error_is_one_line_that_begins_with_the_field(tiny_server, path, fields, status, problem):
    response = post(tiny_server, path, fields if isinstance(fields, bytes) else BODIES[path] | fields)
    error = response.json()["error"]
    message = error if path == OLLAMA else error["message"]
    assert response.status_code == status and message.startswith(problem) and "\n" not in message
    if path != OLLAMA:
        assert message.startswith(error["param"] or problem) and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (COMPLETION, "suffix"),
        (CHAT, "functions"),
        (RESPONSES, "background"),
        (RESPONSES, "stop"),
        (OLLAMA, "top_k"),
        ("/api/generate", "raw"),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_unless_it_is_empty(tiny_server, path, field):
    refused = post(tiny_server, path, BODIES[path] | {field: [1]})
    assert refused.status_code == 422 and f'"{field} is not supported here"' in refused.text
    assert post(tiny_server, path, BODIES[path] | {field: []}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETION, {"prompt": 1} | {f"{number}": 0 for number in range(70_000)}),
        (COMPLETION, {"prompt": ["", *[0] * 300_000]}),
        (COMPLETION, {"prompt": [0, *[""] * 200_000]}),
        (CHAT, {"messages": [{"role": "user", "content": [{}] * 200} for _ in range(1000)]}),
        (CHAT, {"messages": [{}] * 200_000}),
    ],
    ids=["fields", "prompts", "tokens", "parts", "messages"],
)
def test_a_body_full_of_errors_is_refused_at_the_first(tiny_server, path, body):
    """An error for each of them took a second, in which the server answered nobody."""
    response = post(tiny_server, path, body)
    assert response.status_code == 422 and len(response.text) < 200


def test_null_is_the_default_and_whole_numbers_are_integers(tiny_server):
    names = ("model", "stop", "top_k", "top_p", "seed", "calculator", "stream", "n", "logprobs")
    fields = dict.fromkeys(names)
    fields |= {"presence_penalty": 0, "frequency_penalty": 0.0, "max_tokens": 2.0}
    response = post(tiny_server, COMPLETION, {"prompt": "a", **fields})
    assert response.status_code == 200 and response.json()["usage"]["completion_tokens"] <= 2
    chat = {"stop": "", "tool_choice": "", "response_format": {}, "reasoning_effort": ""}
    empty = {"tool_choice": "", "previous_response_id": "", "reasoning": {"effort": ""}}
    for path, fields in ((CHAT, chat), (RESPONSES, empty | {"text": {"format": {}}})):
        answer = post(tiny_server, path, BODIES[path] | fields)
        assert answer.status_code == 200 and "X-Thirteen-Ignored" not in answer.headers, answer.text


def test_seeds_and_top_p_of_openai_are_taken(tiny_server):
    """Seeds are signed and have 64 bits, as Date.now() in JavaScript; -1 is Ollama's default."""
    seeds = (-(2**63), 2**63 - 1, 1732900000000)
    requests = [CompletionRequest.model_validate({"prompt": "a", "seed": seed}) for seed in seeds]
    assert [one.sampling["seed"] for one in requests] == [seed % (SEED_MAX + 1) for seed in seeds]
    body = {"prompt": "a", "seed": -1, "top_p": 0, "temperature": 1, "max_tokens": 4}
    first, second = (post(tiny_server, COMPLETION, body).json()["choices"][0]["text"] for _ in range(2))
    assert first == second  # only the likeliest token is left


def test_the_openapi_document_describes_every_route_and_body(tiny_server):
    with tiny_server.http() as http:
        document = http.get("/openapi.json").json()
    assert len(document["paths"]) == len(ROUTES)
    for form in FORMATS.values():
        body = document["paths"][form.path]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"] | {"components": document["components"]}
        jsonschema.validate(form.body(HI, {"effort": "high", "temperature": 0.5, "max_tokens": 1}), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(form.body(HI, {"effort": "much"}), schema)
