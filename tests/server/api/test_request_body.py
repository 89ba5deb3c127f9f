"""Errors of request bodies over HTTP: one line that names the field, whatever is wrong and however often."""

import json

import pytest
from thirteen.runtime.request import SEED_MAX
from thirteen.server.access.request_limits import RequestLimits
from thirteen.server.api.request_models import CompletionRequest

from ..serving import serve_engine

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json"}


def post(server, path, body):
    with server.http() as http:
        return http.post(path, content=json.dumps(body).encode(), headers=HEADERS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": True}, "n must be a valid integer"),
        ({"n": 1.5}, "n must be a valid integer"),
        ({"n": 10**4000}, "n must be less than or equal to 24"),
        ({"temperature": False}, "temperature must be a valid number"),
        ({"temperature": 10**400}, "temperature must be a valid number"),
        ({"stream": "true"}, "stream must be a valid boolean"),
        ({"stream_options": []}, "stream_options must be an object"),
        ({"stop": {}}, "stop must be a string or a list of strings"),
        ({"stop": ["a", ""]}, "stop[1] must have at least 1 character"),
        ({"stop": ["a"] * 17}, "stop must have at most 16 items, not 17"),
        ({"prompt": ["a", 1]}, "prompt[1] must be a valid string"),
        ({"prompt": "\ud800"}, "prompt has half of a surrogate pair"),
        ({"prompt": None}, "prompt must be a string or tokens, or a list of either"),
        ({"model": "a" * 1025}, "model must have at most 1024 characters"),
        ({"suffix": "b"}, "suffix is not supported: write it into the prompt as the model expects it"),
        ({"n": 0}, "n must be greater than or equal to 1"),
        ({"top_p": -1}, "top_p must be greater than or equal to 0"),
        ({"seed": 2**63}, "seed must be less than 9223372036854775808"),
        ({"presence_penalty": 2.5}, "presence_penalty must be less than or equal to 2"),
        ({"logit_bias": {"97": 101}}, "logit_bias.97 must be less than or equal to 100"),
    ],
)
def test_completion(tiny_server, fields, message):
    check_refusal(tiny_server, fields, message)


def test_seeds_and_top_p_of_openai_are_taken(tiny_server):
    """Seeds are signed and have 64 bits, as Date.now() in JavaScript; -1 is Ollama's default."""
    seeds = (-(2**63), -1, 2**63 - 1, 1732900000000)
    requests = [CompletionRequest.model_validate({"prompt": "a", "seed": seed}) for seed in seeds]
    sampled = [request.new_sampling().seed for request in requests]
    assert sampled[3] == 1732900000000 % (SEED_MAX + 1) and sampled == [
        seed if given == -1 else given % (SEED_MAX + 1) for seed, given in zip(sampled, seeds, strict=True)
    ]
    body = {"prompt": "a", "seed": -1, "top_p": 0, "temperature": 1, "max_tokens": 4}
    first, second = (post(tiny_server, COMPLETION, body).json()["choices"][0]["text"] for _ in range(2))
    assert first == second  # only the likeliest token is left


def check_refusal(server, fields, message):
    response = post(server, COMPLETION, {"prompt": "a"} | fields)
    error = response.json()["error"]
    assert (response.status_code, error["message"]) == (422, message)
    assert message.startswith(error["param"]) and error["type"] == "invalid_request_error"
    supported = "is not supported" not in message
    assert error["code"] == ("invalid_value" if supported else "unsupported_parameter")


@pytest.fixture(scope="module")
def strict_server(tiny_server):
    limits = RequestLimits(strict=True)
    with serve_engine(tiny_server.service.engine, name="tiny", limits=limits) as server:
        yield server


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 1e300}, "max_tokens must be less than or equal to 256"),
        ({"max_tokens": 257}, "max_tokens must be less than or equal to 256"),
        ({"prompts": "a", "n": 0}, "prompts is not supported"),
        ({"stream_options": {"a": 1}}, "stream_options.a is not supported"),
        ({"stream_options": {"\udfff": 1}}, "stream_options.? is not supported"),
        ({"": 1}, '"" is not supported'),
    ],
)
def test_what_only_a_strict_server_refuses(strict_server, fields, message):
    check_refusal(strict_server, fields, message)


HI = [{"role": "user", "content": "a"}]
SCHEMA = {"type": "object", "properties": {"a": {"const": "\ud800"}}}


def test_half_of_a_surrogate_pair_in_a_schema(tiny_server):
    """A response has its schema: the answer was generated, and could not be sent."""
    text = {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}
    response = post(tiny_server, "/v1/responses", {"input": "a", "text": text})
    message = "text.format.schema must have no half of a surrogate pair"
    assert (response.status_code, response.json()["error"]["message"]) == (422, message)


def test_a_kind_of_a_union_is_no_field(tiny_server):
    """It was "keep_alive.float"."""
    response = post(tiny_server, "/api/chat", {"model": "tiny", "keep_alive": {"a": 1}})
    assert (response.status_code, response.json()["error"]) == (422, "keep_alive must be a valid number")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"n": 1' + b"0" * 5000 + b"}", "the body has a number with too many digits"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"n": NaN}', "the body is not JSON: NaN is not a finite number"),
        (b'{"top_p": -1e999}', "the body is not JSON: -1e999 is not a finite number"),
        (b"{\xff}", "the body: not UTF-8: invalid start byte at byte 2"),
        (b"{", "the body is not JSON at line 1 column 2: Expecting property name enclosed in double quotes"),
    ],
)
def test_what_is_no_json(tiny_server, content, message):
    """Messages spoke of Python: "sys.set_int_max_str_digits", "maximum recursion depth exceeded"."""
    with tiny_server.http() as http:
        response = http.post(COMPLETION, content=content, headers=HEADERS)
    assert (response.status_code, response.json()["error"]["message"]) == (400, message)


ECHO = {"echo": True, "max_tokens": 0}
TEXT, SCHEMA_FORMAT = {"type": "text", "text": "a"}, {"type": "json_schema"}
LONG = [{"role": "user", "content": "word " * 600}]
NOTHING = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"not": {}}}}


def said(**fields):
    return {"messages": [{"role": "user", "content": "a"} | fields]}


def written(**fields):
    return {"input": "a", "text": {"format": SCHEMA_FORMAT | fields}}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT, {"messages": ["a"]}, 422, "messages[0]"),
        (CHAT, said(role="robot"), 422, "messages[0].role"),
        (CHAT, said(content=5), 422, "messages[0].content"),
        (CHAT, said(content=["a"]), 422, "messages[0].content[0]"),
        (CHAT, said(content=[TEXT | {"text": "\ud800"}]), 422, "messages[0].content[0].text"),
        (CHAT, said(audio="b"), 422, "messages[0].audio"),
        (CHAT, {"messages": LONG}, 400, None),
        (CHAT, said(content=" "), 400, None),
        (CHAT, {"messages": HI, "model": "gpt-4o"}, 404, "model"),
        (CHAT, {"messages": HI, "functions": [{"name": "f"}]}, 422, "functions"),
        (CHAT, {"messages": HI, "top_logprobs": 2}, 400, "top_logprobs"),
        (CHAT, {"messages": HI, "stream_options": {"include_usage": True}}, 400, "stream_options"),
        (CHAT, {"messages": HI, "response_format": SCHEMA_FORMAT}, 400, "response_format.json_schema"),
        (CHAT, {"messages": HI, "response_format": NOTHING}, 400, None),
        ("/v1/answer", {}, 422, "question"),
        ("/v1/answer", {"question": ""}, 422, "question"),
        ("/v1/answer", {"question": " "}, 400, None),
        ("/v1/answer", {"question": "one two " * 3000, "effort": "medium"}, 400, None),
        ("/v1/answer", {"question": "x", "votes": 3}, 422, "votes"),
        ("/v1/answer", {"question": "x", "temperature": 3}, 422, "temperature"),
        ("/v1/check", {"claim": "1" * 4097}, 422, "claim"),
        ("/v1/responses", written(name="x"), 400, "text.format.schema"),
        ("/v1/responses", written(schema={}), 400, "text.format.name"),
        ("/v1/responses", {"input": []}, 422, "input"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{}]}]}, 422, "input[0].content[0].type"),
        ("/v1/responses", {"input": "a", "background": True}, 422, "background"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "1"}]}, 422, "input[0]"),
        ("/v1/responses", {"input": "a", "truncation": "auto"}, 422, "truncation"),
        (COMPLETION, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        (COMPLETION, ECHO | {"prompt": "a", "stream": True}, 400, "max_tokens"),
        (COMPLETION, {"prompt": "a" * 200, "echo": True, "logprobs": 5, "n": 16}, 400, "logprobs"),
        (COMPLETION, ECHO | {"prompt": [1, 9999]}, 400, None),
        (COMPLETION, ECHO | {"prompt": "a" * 300, "logprobs": 0}, 400, None),
        (COMPLETION, ECHO | {"prompt": [[97]] * 17}, 422, "prompt"),
        (COMPLETION, ECHO | {"prompt": [97, "a"]}, 422, "prompt[1]"),
        (COMPLETION, ECHO | {"prompt": [[97], [True]]}, 422, "prompt[1][0]"),
        (COMPLETION, ECHO | {"prompt": [-1]}, 422, "prompt[0]"),
    ],
)
def test_error_names_the_field(tiny_server, path, body, status, param):
    response = post(tiny_server, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param) and "\n" not in error["message"]
    if body.get("messages") is LONG or len(body.get("question", "")) > 1000:
        assert error["code"] == "context_length_exceeded"


def test_null_is_the_default_and_whole_numbers_are_integers(tiny_server):
    fields = dict.fromkeys(
        ["model", "stop", "top_k", "top_p", "seed", "calculator", "stream", "n", "logprobs"]
    ) | {"presence_penalty": 0, "frequency_penalty": 0.0}
    response = post(tiny_server, COMPLETION, {"prompt": "a", "max_tokens": 2.0, **fields})
    assert response.status_code == 200 and response.json()["usage"]["completion_tokens"] <= 2


@pytest.mark.parametrize("value", [None, "", [], {}, False])
def test_unknown_fields_that_are_empty_are_ignored(tiny_server, value):
    """Clients send them: a message of ours that OpenAI's client has read has annotations that are null."""
    message = {"role": "user", "content": "a", "annotations": value}
    for path, body in ((COMPLETION, {"prompt": "a"}), (CHAT, {"messages": [message]})):
        response = post(tiny_server, path, body | {"user": value, "store": value, "max_tokens": 1})
        assert response.status_code == 200, response.text


def test_empty_fields_are_the_default(strict_server):
    chat = {"messages": HI, "max_tokens": 1, "stop": "", "tool_choice": "", "response_format": {}}
    response = {"input": "a", "max_output_tokens": 1, "tool_choice": "", "previous_response_id": ""}
    for path, body in (
        (CHAT, chat | {"reasoning_effort": ""}),
        ("/v1/responses", response | {"reasoning": {"effort": ""}, "text": {"format": {}}}),
    ):
        answer = post(strict_server, path, body)
        assert answer.status_code == 200, answer.text
    assert answer.json()["previous_response_id"] is None


@pytest.mark.parametrize("value", [1, [None], {"a": None}])
def test_unknown_fields_that_say_something_are_refused(strict_server, value):
    response = post(strict_server, COMPLETION, {"prompt": "a", "user": None, "store": value})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "store")


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
